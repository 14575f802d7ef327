"""What an evaluation saves against the obvious script, and whether its memory grows.

    python -m benchmarks.evaluate [--rounds 7] [--prompts 16] [--cpu-time] [--json]
    python -m benchmarks.evaluate --memory [--json]

A round draws and scores the same prompts with four policies: with `asyncdiff eval`'s engine into a
store, with it but without sharing an evaluation, and with a script that runs the stock pipeline and
the scorers once per policy, prompt by prompt or in batches as large as ours. Rounds are interleaved
and each gives ratios of images per second. Printed are the median ratios with their 95 % bootstrap
intervals, and the denoiser's calls.
`--memory` evaluates 200 and then 2,000 prompts, each in a process of its own, and compares peaks.
"""

from __future__ import annotations

import itertools
import json as json_module
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine import Backbone, attach
from asyncdiff_cli.engine.backbones.backbone import load_outline
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.encoded_text import EncodedText
from asyncdiff_cli.engine.evaluation.comparison import Comparison
from asyncdiff_cli.engine.evaluation.contender import EvaluationCell, key
from asyncdiff_cli.engine.evaluation.evaluation import Evaluation
from asyncdiff_cli.engine.evaluation.start import open_evaluation
from asyncdiff_cli.engine.evaluation.summary import summarize
from benchmarks import options
from benchmarks.calls import counting, saved
from benchmarks.overhead import measure, ratio

OURS, WHOLE, ONE_BY_ONE, BATCHED = "ours", "ours without sharing", "one by one", "batched"
TARGETS = {WHOLE: 1.0, ONE_BY_ONE: 1.2, BATCHED: 1.1}
"""Images per second of ours, times those of each."""
POLICIES = "baseline,learned,fixed:0.5,detail-daemon"
SIZES = (200, 2000)
MEMORY_STEPS = 1
"""Steps of the runs that only memory is measured of."""


def script(
    evaluation: Evaluation, backbone: Backbone, batch: int
) -> dict[str, list[dict[str, torch.Tensor]]]:
    """Each policy in turn through the stock pipeline; its scores, batch by batch."""
    canvas, found = evaluation.canvas, {}
    length = backbone.entry.max_sequence_length
    everyone = range(len(evaluation.order))
    for contender in evaluation.contenders:
        found[contender.label] = []
        for start in range(0, len(everyone), batch):
            chunk = everyone[start : start + batch]
            texts = [evaluation.text(i) for i in chunk]
            seeds = [key(evaluation.seed, EvaluationCell(i, contender)).seed for i in chunk]
            with attach(backbone.pipe, contender.policy, contender.gamma):
                images = backbone.pipe(
                    texts,
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                    num_inference_steps=contender.steps,
                    guidance_scale=canvas.scale,
                    height=canvas.pixels,
                    width=canvas.pixels,
                    **({} if length is None else {"max_sequence_length": length}),
                ).images
            found[contender.label].append(evaluation.scorers.score(images, texts))
    return found


def ours(encoder: Canvas, evaluation: Evaluation, out: Path, share: bool = True) -> None:
    """The same into a new store, with the models that are loaded: first all prompts are encoded."""
    text = EncodedText(out.with_name(f"{out.name}-text"), "mine")
    for n in range(len(evaluation.order)):
        prompt = evaluation.text(n)
        text.write(prompt, encoder.encode([prompt])[prompt])
    evaluation.canvas = replace(evaluation.canvas, text=text, share_first=share)
    evaluation.store = type(evaluation.store).open(
        out, {k: v for k, v in evaluation.store.settings.items() if k != "format"}
    )
    for _ in evaluation.run(evaluation.pending()):
        pass


def compare(
    wanted: Comparison, rounds: int, batch: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """Seconds of each way, [rounds], and the rows that ours asks the denoiser for."""
    with tempfile.TemporaryDirectory() as directory:
        evaluation = open_evaluation(wanted, Path(directory) / "store")
        outline = Outline.of(wanted.choice)
        stock = load_outline(outline)
        encoder = Canvas(load_outline(outline, "text"), wanted.guidance)
        numbers = itertools.count()

        def draw(share: bool) -> None:
            ours(encoder, evaluation, Path(directory) / f"store-{next(numbers)}", share)

        jobs: dict[str, Callable[[], Any]] = {
            OURS: lambda: draw(True),
            WHOLE: lambda: draw(False),
            ONE_BY_ONE: lambda: script(evaluation, stock, 1),
            BATCHED: lambda: script(evaluation, stock, batch),
        }
        counted, rows = counting(evaluation.canvas.backbone.pipe.transformer, jobs)
        return measure(counted, rounds, clock=clock), rows


def peak(prompts: int, batch: int) -> int:
    """Peak memory in bytes of a process that evaluates so many prompts and makes their table."""
    code = f"from benchmarks.evaluate import one; one({prompts}, {batch})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def one(prompts: int, batch: int) -> None:
    """Evaluate, summarize, and print this process's peak memory in bytes."""
    render.quiet_libraries()
    texts = [f"a cat number {n}" for n in range(prompts)]
    wanted = Comparison(
        ModelChoice(),
        "baseline,fixed:0.5",
        texts=texts,
        steps=(MEMORY_STEPS,),
        rewards=("sharpness",),
        batch_size=batch,
    )
    with tempfile.TemporaryDirectory() as directory:
        evaluation = open_evaluation(wanted, Path(directory) / "store")
        for _ in evaluation.run(evaluation.pending()):
            pass
        summarize(evaluation.store)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main(
    backbone: Annotated[str, typer.Option(help="As `asyncdiff eval`.")] = "mini",
    policies: Annotated[str, typer.Option(help="As `asyncdiff eval`.")] = POLICIES,
    prompts: Annotated[int, typer.Option(min=1)] = 16,
    batch: Annotated[int, typer.Option(min=1, help="Of ours, and of the batched script.")] = 8,
    rounds: Annotated[int, typer.Option(min=3)] = 7,
    memory: Annotated[bool, typer.Option("--memory", help="Measure memory instead.")] = False,
    cpu_time: options.CpuTime = False,
    json: options.Json = False,
) -> None:
    """Time an evaluation against the obvious script, or measure its memory."""
    render.quiet_libraries()
    if memory:
        report: dict[str, Any] = {f"peak_bytes_{n}_prompts": peak(n, batch) for n in SIZES}
    else:
        wanted = Comparison(
            ModelChoice(backbone=backbone), policies, limit=prompts, batch_size=batch, kept_images=0
        )
        clock = time.process_time if cpu_time else time.perf_counter
        seconds, rows = compare(wanted, rounds, batch, clock)
        images = prompts * len(policies.split(","))
        report = {
            "backbone": backbone,
            "policies": policies,
            "images": images,
            "batch": batch,
            "threads": torch.get_num_threads(),
            "seconds_of": "the process" if cpu_time else "the wall clock",
            "rounds": rounds,
            "images_per_second": round(float(images / np.median(seconds[OURS])), 3),
            "denoiser_calls": saved(rows[OURS], rows[WHOLE]),
        }
        for way, target in TARGETS.items():
            report[f"images per second / {way}"] = ratio(seconds[way], seconds[OURS], target)
    if json:
        print(json_module.dumps(report))
        return
    table = Table("measure", "value")
    for name, value in report.items():
        table.add_row(name, str(value))
    render.tables([table])


if __name__ == "__main__":
    typer.run(main)
