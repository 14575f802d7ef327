"""What asynchronous conditioning costs: wall time against the stock diffusers pipeline.

    python -m benchmarks.overhead [--json]

Every round draws the same batch with each method, in an order of its own, and each method's time
is divided by the stock pipeline's of that round, so that a machine whose speed drifts does not
favour any. Printed are the medians of these ratios, with 95 % bootstrap confidence intervals. The
module is an untrained one: it costs what a trained one does.
"""

from __future__ import annotations

import json as json_module
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine import (
    Backbone,
    FixedDeviation,
    LearnedDeviation,
    Policy,
    Synchronous,
    TimestepPredictionModule,
    attach,
    load_backbone,
    sample,
)
from asyncdiff_cli.engine.dtypes import dtype_name
from benchmarks import options

TARGET = 1.02
STOCK = "stock pipeline"
FIXED = FixedDeviation(0.5)
"""The constant that is timed."""
LEAST = 3
"""Rounds that a measurement takes, however long they last."""


def methods(
    backbone: Backbone, batch: int, steps: int, learned: Policy | None = None
) -> dict[str, Callable[[], Any]]:
    """The ways to draw one and the same batch.

    Args:
        learned: default the module that is shipped for the backbone, if there is one.
    """
    length = backbone.entry.max_sequence_length
    prompts = ["a cat", "an octopus on a yellow background", "a rocket", "a red apple"]
    settings: dict[str, Any] = {
        "num_inference_steps": steps,
        "guidance_scale": backbone.entry.guidance_scale,
        "height": backbone.size,
        "width": backbone.size,
        **({} if length is None else {"max_sequence_length": length}),
    }
    prompts = [prompts[i % len(prompts)] for i in range(batch)]

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(batch)]

    def stock() -> Any:
        return backbone.pipe(prompts, generator=generators(), **settings).images

    def sampled(policy: Policy) -> Any:
        return sample(backbone, prompts, policy, generator=generators(), **settings).images

    def attached(policy: Policy) -> Any:
        with attach(backbone.pipe, policy):
            return stock()

    policies = {"synchronous": Synchronous(), "fixed": FIXED, "learned": learned}
    ways = {
        f"{way}, {name}": partial(draw, policy)
        for way, draw in (("sample", sampled), ("attach", attached))
        for name, policy in policies.items()
        if policy is not None
    }
    return {STOCK: stock, **ways}


def measure(
    draw: dict[str, Callable[[], Any]],
    rounds: int,
    limit: float = float("inf"),
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Seconds of each method in each round, [rounds].

    Args:
        limit: seconds after which no further round is begun, once there are `LEAST`.
        warm_up: how often every method is called before.
        clock: tells seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in draw}
    order, shuffle = list(draw), random.Random(0).shuffle
    for name in order * warm_up:
        draw[name]()
    console, begin = Console(stderr=True), time.perf_counter()
    for n in track(range(rounds), "rounds", console=console, disable=not console.is_terminal):
        if n >= LEAST and time.perf_counter() - begin > limit:
            break
        shuffle(order)
        for name in order:
            start = clock()
            draw[name]()  # ends with images on the CPU, so a GPU has finished
            seconds[name].append(clock() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def median_interval(values: np.ndarray, resamples: int = 10_000) -> tuple[float, float, float]:
    """The median and its 95 % percentile bootstrap interval; `values` is [n]."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (resamples, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)


def ratio(dividend: np.ndarray, divisor: np.ndarray, target: float) -> dict[str, float]:
    """The median ratio of the rounds, [n] each, with its interval and what is aimed at."""
    middle, low, high = (round(value, 4) for value in median_interval(dividend / divisor))
    return {"ratio": middle, "low": low, "high": high, "target": target}


def main(
    backbone: Annotated[str, typer.Option(help="A name, directory or repository.")] = "mini",
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 4,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: the backbone's.")] = None,
    rounds: Annotated[int, typer.Option(min=3)] = 30,
    json: options.Json = False,
) -> None:
    """Time the sampler against the stock diffusers pipeline."""
    render.quiet_libraries()
    loaded = load_backbone(backbone)
    steps = steps or loaded.entry.num_inference_steps
    module = TimestepPredictionModule(**loaded.adapter.channels).to(loaded.device)
    seconds = measure(methods(loaded, batch, steps, LearnedDeviation(module)), rounds)
    ratios = {n: median_interval(s / seconds[STOCK]) for n, s in seconds.items() if n != STOCK}
    stock = float(np.median(seconds[STOCK]))
    setting = {
        "backbone": loaded.name,
        "device": loaded.device_name,
        "dtype": dtype_name(loaded.dtype),
        "threads": torch.get_num_threads(),
        "batch": batch,
        "steps": steps,
        "rounds": rounds,
        "stock_seconds": round(stock, 4),
        "target": TARGET,
    }
    if json:
        rows = {n: dict(zip(("ratio", "low", "high"), r, strict=True)) for n, r in ratios.items()}
        print(json_module.dumps({**setting, "ratios": rows}))
        return
    table = Table(title=", ".join(f"{name} {value}" for name, value in setting.items()))
    for heading in ("method", "time / stock", "95 % interval", f"≤ {TARGET}"):
        table.add_column(heading)
    for name, (ratio, low, high) in ratios.items():
        table.add_row(
            name, f"{ratio:.4f}", f"{low:.4f} … {high:.4f}", "yes" if ratio <= TARGET else "no"
        )
    render.tables([table])


if __name__ == "__main__":
    typer.run(main)
