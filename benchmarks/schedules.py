"""What schedules without a reward are worth: distances from many steps, at equal evaluations.

    python -m benchmarks.schedules [--backbone mini] [--steps 5,8,10,15] [--held-out 64] [--json]

Of each number of steps K and each solver with one evaluation a step: no deviation, the best
constant, the policy `spectral`, and a schedule that was calibrated; and, for Euler, the schedule
that a module is distilled into (`--distilled FILE`). Constants and schedules are found on training
prompts. Printed are mean squared distances of the last latents from those of many steps of Euler,
on validation prompts, and paired differences from synchronous Euler with 95 % bootstrap intervals.
A distance from many steps is no judgement of pictures: `asyncdiff eval` scores them.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine import Backbone, Schedule, load_backbone, make_scheduler
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.seeds import EVALUATION, SCHEDULE, noise_seed
from asyncdiff_cli.engine.policies.spectral import optimal_deviations
from asyncdiff_cli.engine.prompts.load import load_prompts
from asyncdiff_cli.engine.schedules.calibration import deviations_of
from asyncdiff_cli.engine.schedules.picture_set import PictureSet
from asyncdiff_cli.engine.schedules.search import Search
from asyncdiff_cli.engine.statistics import all_paired
from benchmarks import options

SOLVERS = ("euler", "dpmpp", "unipc")
"""The solvers that evaluate once a step."""
SYNCHRONOUS, CONSTANT = "synchronous", "best constant"


def pictures(canvas: Canvas, split: str, count: int, steps: int, batch: int) -> PictureSet:
    """Prompts of a split of mini's, with noise that no other split has."""
    stream = EVALUATION if split == "validation" else SCHEDULE
    texts = load_prompts("mini", split).draw(count, 0)
    seeds = tuple(noise_seed(0, stream, n) for n in range(count))
    return PictureSet(canvas, tuple(texts), seeds, steps, batch)


def put(backbone: Backbone, solver: str) -> None:
    """Have a backbone drawn by a solver, on its own grid."""
    pipe = backbone.pipe
    pipe.scheduler = make_scheduler(solver, backbone.entry.family, pipe.scheduler.config)


def found(
    searched: PictureSet, search: Search, solver: str, distilled: Sequence[float] | None
) -> dict[str, tuple[float, ...]]:
    """The schedules of a solver by name, the best constant and the calibrated one searched for."""
    with searched.calibration(search) as calibration:
        deviations = deviations_of(calibration.run())
        constant = calibration.constant()
        schedules = {
            SYNCHRONOUS: calibration.synchronous,
            CONSTANT: (constant,) * (calibration.steps - 1),
            "spectral": optimal_deviations(tuple(calibration.sigmas.tolist()), solver),
            "calibrated": deviations,
        }
    return schedules | ({} if distilled is None else {"distilled": tuple(distilled)})


def measured(
    searched: PictureSet, held_out: PictureSet, search: Search, distilled: Sequence[float] | None
) -> Iterator[dict[str, Any]]:
    """Rows of a number of steps: the schedules of each solver, beside synchronous Euler."""
    backbone = held_out.canvas.backbone
    put(backbone, SOLVERS[0])
    with held_out.calibration(search) as calibration:
        aims = [teacher[-1] for teacher in calibration.teachers]
    beside: list[float] = []
    for solver in SOLVERS:
        put(backbone, solver)
        schedules = found(searched, search, solver, distilled if solver == SOLVERS[0] else None)
        with held_out.calibration(search, aims) as calibration:
            distances = {
                name: calibration.distances(calibration.drawn(schedule))
                for name, schedule in schedules.items()
            }
        beside = beside or distances[SYNCHRONOUS]
        compared = all_paired([(own, beside) for own in distances.values()])
        for (name, schedule), difference in zip(schedules.items(), compared, strict=True):
            yield {
                "steps": held_out.steps,
                "solver": solver,
                "schedule": name,
                "deviations": list(schedule),
                **asdict(difference),
            }


def main(
    backbone: Annotated[str, typer.Option(help="A backbone of mini's world.")] = "mini",
    steps: Annotated[str, typer.Option(help="Numbers of steps.")] = "5,8,10,15",
    searched: Annotated[int, typer.Option(min=1, help="Prompts to search on.")] = 16,
    held_out: Annotated[int, typer.Option(min=2, help="Prompts to measure on.")] = 64,
    distilled: Annotated[
        list[Path] | None, typer.Option(help="Schedule files that `asyncdiff distill` wrote.")
    ] = None,
    split: Annotated[int, typer.Option(min=2, help="The teacher's steps in one.")] = 10,
    batch: options.Batch = 16,
    json: options.Json = False,
) -> None:
    """Compare schedules and solvers at equal evaluations."""
    render.quiet_libraries()
    files = {own.steps: own.deviations for own in map(Schedule.load, distilled or ())}
    canvas, search = Canvas(load_backbone(backbone)), Search(split=split)
    console, rows = Console(stderr=True), []
    counts = [int(part) for part in steps.split(",")]
    with torch.no_grad():
        for count in track(counts, "steps", console=console, disable=not console.is_terminal):
            sets = (
                pictures(canvas, part, number, count, batch)
                for part, number in (("train", searched), ("validation", held_out))
            )
            rows += measured(*sets, search, files.get(count))
    report = {"backbone": backbone, "searched": searched, "held_out": held_out, "rows": rows}
    print(json_module.dumps(report)) if json else _print(report)


def _print(report: Mapping[str, Any]) -> None:
    table = Table(
        "K", "solver", "schedule", "mean D", "distance", "difference from synchronous Euler"
    )
    for row in report["rows"]:
        deviation = sum(row["deviations"]) / len(row["deviations"])
        table.add_row(
            str(row["steps"]),
            row["solver"],
            row["schedule"],
            f"{deviation:+.3f}",
            f"{row['mean']:.4g}",
            f"{row['difference']:+.4g} [{row['low']:+.4g}, {row['high']:+.4g}]",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
