"""How fast the denoiser is beside a matrix product, and what the policies add to the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from asyncdiff_cli.engine import Backbone, LearnedDeviation, sample
from asyncdiff_cli.engine.drawing.canvas import Canvas, joined
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.run_options import RECIPES
from asyncdiff_cli.engine.training.state import new_tpm
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.rows import Row, Task
from benchmarks.overhead import LEAST, STOCK, measure, median_interval, methods

FIXED_AIM, LEARNED_AIM = 1.005, 1.02
"""Times the stock pipeline's seconds."""
SAMPLED = ("sample, fixed", "sample, learned")
"""What is timed at each batch size."""
ATTACHED = ("attach, fixed", "attach, learned")
"""What is timed at the first batch size, after the others."""
PART = 0.08
"""Share of the budget: after it no more rounds are begun than the least number."""
WARM_UP_STEPS = 2
"""They choose the kernels of a batch size; the steps after these are alike."""
PRODUCTS, REPEATS = 10, 20
"""Matrix products in a timing, and timings of which the best counts."""
LOOPS, LOOP_STEPS = 3, 3
"""Runs of the denoiser's loop that are timed, and evaluations in each."""


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, call: Callable[[], Any]) -> float:
    """Seconds that a call keeps the device busy."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def product_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of the product of two square matrices: what this device can reach."""
    a, b = torch.randn(2, side, side, device=device, dtype=dtype).unbind()

    def multiply() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, b)

    multiply()  # warm up
    best = min(timed(device, multiply) for _ in range(REPEATS))
    return PRODUCTS * 2 * side**3 / best


def embeddings(backbone: Backbone, batch: int) -> dict[str, Any]:
    """A batch of conditions, as `sample` takes them."""
    text = Canvas(backbone).encode(["a cat"])
    return joined(list(text.values()) * batch)


def loop(backbone: Backbone, batch: int, steps: int) -> Callable[[], Any]:
    """The denoiser's loop without text encoders and decoder."""
    given = embeddings(backbone, batch)

    def run() -> Any:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(batch)]
        return sample(
            backbone,
            num_inference_steps=steps,
            generator=seeds,
            output_type="latent",
            **given,
        ).latents

    return run


def evaluation_flops(backbone: Backbone) -> int:
    """FLOPs of one evaluation of one image, with both guidance branches where there are two.

    Attention is counted as matrix products on every device: that of a CPU's fused kernel is not
    known to the counter.
    """
    run = loop(backbone, batch=1, steps=1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def loop_seconds(backbone: Backbone, batch: int) -> float:
    """Seconds of one evaluation of a batch, in the loop; the median of several runs."""
    run, device = loop(backbone, batch, LOOP_STEPS), backbone.device
    timed(device, run)  # warm up
    return float(np.median([timed(device, run) for _ in range(LOOPS)])) / LOOP_STEPS


def fresh_module(backbone: Backbone) -> LearnedDeviation:
    """The module that training starts from: it costs what a trained one does."""
    name = backbone.entry.name
    return LearnedDeviation(new_tpm(load_recipe(RECIPES[name]), backbone).to(backbone.device))


def compared(ours: np.ndarray, theirs: np.ndarray, aim: float) -> dict[str, Any]:
    """The median of the rounds' ratios, its interval, and whether it reaches an aim."""
    ratio, low, high = median_interval(ours / theirs)
    return {
        "rounds": len(ours),
        "ratio": ratio,
        "low": low,
        "high": high,
        "aim": aim,
        "reached": ratio <= aim,
    }


def overhead(bench: Bench) -> Iterator[Task]:
    """The policies over the stock pipeline in interleaved rounds; `attach` once they are known."""
    batches = bench.settings.batches
    for batch, ways in (*((batch, SAMPLED) for batch in batches), (batches[0], ATTACHED)):
        least = LEAST * (1 + len(ways)) * bench.seconds(batch)
        yield Task({"batch": batch}, partial(_rounds, bench, batch, ways), least)


def _rounds(bench: Bench, batch: int, ways: Sequence[str]) -> Iterator[Row]:
    backbone, settings = bench.loaded, bench.settings
    learned = fresh_module(backbone)
    short, whole = (
        {name: methods(backbone, batch, steps, learned)[name] for name in (STOCK, *ways)}
        for steps in (WARM_UP_STEPS, settings.evaluations)
    )
    for draw in short.values():
        draw()
    found = measure(whole, settings.rounds, settings.share(PART), warm_up=0)
    stock = found.pop(STOCK)
    each = bench.per_image[batch] = float(np.median(stock)) / batch
    yield {"method": STOCK, "rounds": len(stock), "seconds_per_image": each}
    for name, seconds in found.items():
        aim = LEARNED_AIM if name.endswith("learned") else FIXED_AIM
        yield {"method": name, **compared(seconds, stock, aim)}


def speed(bench: Bench) -> Iterator[Task]:
    """The denoiser's FLOP/s beside a matrix product's."""
    found: Row = {}  # the first task's, for the others
    yield Task({"of": "matrix product"}, lambda: [found.update(_product(bench)) or found])
    for batch in bench.settings.batches:
        least = bench.seconds(batch)
        yield Task({"batch": batch}, partial(_denoiser, bench, batch, found), least)


def _product(bench: Bench) -> Row:
    side = bench.settings.product or (8192 if bench.device.type == "cuda" else 1024)
    rate = product_rate(bench.device, bench.loaded.dtype, side)
    return {
        "side": side,
        "tflops": rate / 1e12,
        "evaluation_tflop": evaluation_flops(bench.loaded) / 1e12,
    }


def _denoiser(bench: Bench, batch: int, found: Row) -> Iterator[Row]:
    rate = batch * found["evaluation_tflop"] / loop_seconds(bench.loaded, batch)
    yield {"of": "denoiser", "tflops": rate, "share_of_product": rate / found["tflops"]}
