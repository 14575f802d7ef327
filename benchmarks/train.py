"""What training costs on top of its rollouts, what sharing saves, and whether its memory grows.

    python -m benchmarks.train [--rounds 15] [--cpu-time] [--json]

A round is one iteration of `asyncdiff train`, one in which no images share an evaluation, and the
images of one through the stock diffusers pipeline and the rewards: the same encoded prompts, number
of steps, batches and decodings. Rounds are interleaved and each gives ratios, so that a machine
whose speed drifts favours none. Printed are the median ratios with their 95 % bootstrap intervals,
the denoiser's calls, and the process's peak memory early and late.
"""

from __future__ import annotations

import itertools
import json as json_module
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
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
from benchmarks.calls import counting, saved
from benchmarks.overhead import measure, ratio

TARGET = 1.10
SHARING_TARGET = 1.15
"""Times the images per second without sharing."""
ITERATION, WHOLE, BARE = "iteration", "iteration without sharing", "bare"
ROLLOUTS_ONLY = (
    *("iterations=100", "evaluation.every=1000000", "evaluation.prompts=2"),
    *("samples.every=0", "checkpoint.every=1000000"),
)
"""Settings of the training that leave nothing but iterations, after one small baseline.

Every iteration's prompts are encoded beforehand, and the last one is followed by an evaluation: so
there are more iterations than rounds, but not many more.
"""
WARM_UP = 1
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


def jobs(trainer: Trainer, peaks: list[int]) -> dict[str, Callable[[], Any]]:
    """What a round does, by name. Each iteration goes on with the training, whose first one, with
    the held-out baseline before it, is over.

    Args:
        peaks: gets the process's peak memory in bytes after each iteration.
    """
    events, canvas, numbers = trainer.train(), trainer.canvas, itertools.count()
    advance(events)

    def iterate(share: bool) -> None:
        trainer.canvas = replace(canvas, share_first=share)
        advance(events)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    return {
        ITERATION: partial(iterate, True),
        WHOLE: partial(iterate, False),
        BARE: lambda: bare(trainer, next(numbers)),
    }


def main(
    recipe: Annotated[str, typer.Option(help="A recipe's name or file.")] = "mini",
    rounds: Annotated[int, typer.Option(min=3)] = 15,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE.")] = None,
    cpu_time: options.CpuTime = False,
    json: options.Json = False,
) -> None:
    """Time iterations of the training against others without sharing, and bare rollouts."""
    render.quiet_libraries()
    iterations = f"iterations={2 * (WARM_UP + rounds) + 2}"
    settings = load_recipe(recipe, [*ROLLOUTS_ONLY, iterations, *(overrides or ())])
    peaks: list[int] = []
    with tempfile.TemporaryDirectory() as directory:
        trainer = open_trainer(settings, Path(directory) / "run")
        backbone = trainer.canvas.backbone
        counted, rows = counting(backbone.pipe.transformer, jobs(trainer, peaks))
        clock = time.process_time if cpu_time else time.perf_counter
        seconds = measure(counted, rounds, warm_up=WARM_UP, clock=clock)
    images = settings.prompts_per_iteration * settings.group_size
    report = {
        "recipe": recipe,
        "device": backbone.device_name,
        "dtype": dtype_name(backbone.dtype),
        "threads": torch.get_num_threads(),
        "seconds_of": "the process" if cpu_time else "the wall clock",
        "images_per_iteration": images,
        "steps": settings.num_inference_steps,
        "rounds": rounds,
        "images_per_second": round(images / float(np.median(seconds[ITERATION])), 3),
        "iteration / bare": ratio(seconds[ITERATION], seconds[BARE], TARGET),
        "images per second / without sharing": ratio(
            seconds[WHOLE], seconds[ITERATION], SHARING_TARGET
        ),
        "denoiser_calls": saved(rows[ITERATION], rows[WHOLE]),
        "peak_bytes_early": peaks[2 * WARM_UP],
        "peak_bytes_late": peaks[-1],
    }
    if json:
        print(json_module.dumps(report))
        return
    table = Table("measure", "value")
    for name, value in report.items():
        table.add_row(name, str(value))
    render.tables([table])


if __name__ == "__main__":
    typer.run(main)
