"""What training costs on top of its rollouts, and whether its memory grows.

    python -m benchmarks.train [--rounds 15] [--json]

A round is one iteration of `asyncdiff train`, and the same images through the stock diffusers
pipeline and the rewards: the same encoded prompts, number of steps, batches and decodings. Rounds
are interleaved and each gives a ratio, so that a machine whose speed drifts favours neither.
Printed are the median ratio with its 95 % bootstrap interval, and the process's peak memory early
and late.
"""

from __future__ import annotations

import json as json_module
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine.drawing.canvas import joined
from asyncdiff_cli.engine.dtypes import dtype_name
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.rollout import plan_iteration
from asyncdiff_cli.engine.training.rows import Event
from asyncdiff_cli.engine.training.start import open_trainer
from asyncdiff_cli.engine.training.trainer import Trainer
from benchmarks import options
from benchmarks.overhead import LEAST, median_interval

TARGET = 1.10
ROLLOUTS_ONLY = (
    *("iterations=100", "evaluation.every=1000000", "evaluation.prompts=2"),
    *("samples.every=0", "checkpoint.every=1000000"),
)
"""Settings of the training that leave nothing but iterations, after one small baseline.

Every iteration's prompts are encoded beforehand, and the last one is followed by an evaluation: so
there are more iterations than rounds, but not many more.
"""
WARM_UP = 2
"""Rounds that are not counted: the first calls of a shape are slower."""


def bare(trainer: Trainer, iteration: int) -> list[Any]:
    """The images of an iteration through the stock pipeline, and their scores."""
    recipe, canvas = trainer.recipe, trainer.canvas
    images = []
    everyone = plan_iteration(recipe, trainer.prompts, iteration)
    text = canvas.encode([t.prompt for t in everyone])
    for start in range(0, len(everyone), recipe.rollout_batch_size):
        chunk = everyone[start : start + recipe.rollout_batch_size]
        given = joined([text[t.prompt] for t in chunk])
        images += canvas.backbone.pipe(
            generator=[torch.Generator().manual_seed(t.noise) for t in chunk],
            num_inference_steps=recipe.num_inference_steps,
            guidance_scale=recipe.guidance_scale,
            height=recipe.size,
            width=recipe.size,
            **{name: value for name, value in given.items() if value is not None},
        ).images
    trainer.scorers.score(images, [t.prompt for t in everyone])
    return images


def advance(events: Iterator[Event]) -> None:
    """Let the training go on for one iteration."""
    while next(events)[0] != "iteration":
        pass


def measure(
    trainer: Trainer, rounds: int, limit: float = float("inf"), warm_up: int = WARM_UP
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Seconds of iterations and of bare rollouts, [rounds] each, and peak memory after each.

    Args:
        limit: seconds after which no further round is begun, once there are `LEAST`.
        warm_up: rounds before those that count.
    """
    events = trainer.train()
    console, begin = Console(stderr=True), time.perf_counter()
    pairs, peaks = [], []
    for n in track(
        range(warm_up + rounds), "rounds", console=console, disable=not console.is_terminal
    ):
        if n >= warm_up + LEAST and time.perf_counter() - begin > limit:
            break
        order: list[Callable[[], Any]] = [lambda: advance(events), lambda n=n: bare(trainer, n)]
        seconds = [0.0, 0.0]
        for place in (0, 1) if n % 2 else (1, 0):
            start = time.perf_counter()
            order[place]()
            seconds[place] = time.perf_counter() - start
        pairs.append(seconds)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    ours, theirs = np.array(pairs[warm_up:]).T
    return ours, theirs, peaks


def main(
    recipe: Annotated[str, typer.Option(help="A recipe's name or file.")] = "mini",
    rounds: Annotated[int, typer.Option(min=3)] = 15,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE.")] = None,
    json: options.Json = False,
) -> None:
    """Time iterations of the training against their bare rollouts."""
    render.quiet_libraries()
    iterations = f"iterations={WARM_UP + rounds + 1}"
    settings = load_recipe(recipe, [*ROLLOUTS_ONLY, iterations, *(overrides or ())])
    with tempfile.TemporaryDirectory() as directory:
        trainer = open_trainer(settings, Path(directory) / "run")
        ours, theirs, peaks = measure(trainer, rounds)
    ratio, low, high = median_interval(ours / theirs)
    backbone = trainer.canvas.backbone
    report = {
        "recipe": recipe,
        "device": backbone.device_name,
        "dtype": dtype_name(backbone.dtype),
        "threads": torch.get_num_threads(),
        "images_per_iteration": settings.prompts_per_iteration * settings.group_size,
        "steps": settings.num_inference_steps,
        "rounds": rounds,
        "iteration_seconds": round(float(np.median(ours)), 4),
        "bare_seconds": round(float(np.median(theirs)), 4),
        "ratio": ratio,
        "low": low,
        "high": high,
        "target": TARGET,
        "peak_bytes_early": peaks[WARM_UP],
        "peak_bytes_late": peaks[-1],
    }
    if json:
        print(json_module.dumps(report))
        return
    table = Table("measure", "value")
    for name, value in report.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    render.tables([table])


if __name__ == "__main__":
    typer.run(main)
