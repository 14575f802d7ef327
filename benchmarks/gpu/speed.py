"""How fast the denoiser is beside a matrix product, and what the policies add to the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from asyncdiff_cli.engine import Backbone, LearnedDeviation, sample
from asyncdiff_cli.engine.launch import RECIPES
from asyncdiff_cli.engine.recipes import load_recipe
from asyncdiff_cli.engine.rollout import Canvas, joined
from asyncdiff_cli.engine.training import new_tpm
from benchmarks.gpu.settings import OverBudgetError, Settings
from benchmarks.overhead import LEAST, STOCK, measure, median_interval, methods

FIXED_AIM, LEARNED_AIM = 1.005, 1.02
"""Times the stock pipeline's seconds."""
EVERY_BATCH = (STOCK, "sample, fixed", "sample, learned")
"""What is timed at each batch size; the other ways at the first one only."""
WARM_UP_STEPS = 2
"""They choose the kernels of a batch size; the steps after these are alike."""
PRODUCTS, REPEATS = 10, 20
"""Matrix products in a timing, and timings of which the best counts."""
LOOPS, LOOP_STEPS = 3, 3
"""Runs of the denoiser's loop that are timed, and evaluations in each."""


@dataclass
class Timings:
    """Seconds of rounds [rounds] by batch size and method, and of what there was no time for."""

    seconds: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    per_image: float = 0.0
    """The stock pipeline's seconds at the last batch size; 0 before there is any."""

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """The rows of a table that there was no time for."""
        return [{"batch": batch, "reason": reason} for batch, reason in self.reasons.items()]


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


def timings(backbone: Backbone, settings: Settings, policies: bool) -> Timings:
    """Seconds of each method by batch size, from interleaved rounds.

    Args:
        policies: whether to time them beside the stock pipeline, or that alone.
    """
    learned, found = fresh_module(backbone), Timings()
    for batch in settings.batches:
        first = batch == settings.batches[0]
        short, whole = (
            {
                name: draw
                for name, draw in methods(backbone, batch, steps, learned).items()
                if name == STOCK or (policies and (first or name in EVERY_BATCH))
            }
            for steps in (WARM_UP_STEPS, settings.evaluations)
        )
        try:
            settings.check_left(LEAST * len(whole) * batch * found.per_image)
        except OverBudgetError as error:
            found.reasons[batch] = str(error)
            continue
        for draw in short.values():
            draw()
        limit = settings.share(0.08)
        found.seconds[batch] = measure(whole, settings.rounds, limit, warm_up=False)
        found.per_image = float(np.median(found.seconds[batch][STOCK])) / batch
    return found


def measure_speed(backbone: Backbone, settings: Settings, found: Timings) -> dict[str, Any]:
    """Time per image, and the denoiser's FLOP/s as a share of a matrix product's."""
    side = settings.product or (8192 if backbone.device.type == "cuda" else 1024)
    peak = product_rate(backbone.device, backbone.dtype, side)
    flops, rows = evaluation_flops(backbone), []
    for batch, own in found.seconds.items():
        rate = batch * flops / loop_seconds(backbone, batch)
        per_image = float(np.median(own[STOCK])) / batch
        rows.append(
            {
                "batch": batch,
                "rounds": len(own[STOCK]),
                "seconds_per_image": per_image,
                "images_per_second": 1 / per_image,
                "denoiser_tflops": rate / 1e12,
                "share_of_product": rate / peak,
            }
        )
    return {
        "product_tflops": peak / 1e12,
        "product_side": side,
        "evaluation_tflop": flops / 1e12,
        "rows": [*rows, *found.left_out],
    }


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


def measure_overhead(found: Timings) -> dict[str, Any]:
    """Each method's seconds over the stock pipeline's of the same round."""
    rows: list[dict[str, Any]] = []
    for batch, own in found.seconds.items():
        for name in (n for n in own if n != STOCK):
            aim = LEARNED_AIM if name.endswith("learned") else FIXED_AIM
            row = {"batch": batch, "method": name}
            rows.append({**row, **compared(own[name], own[STOCK], aim)})
    return {"rows": [*rows, *found.left_out]}
