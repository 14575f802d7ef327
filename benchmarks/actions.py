"""What a module gains by deciding more at a step, and by one training for several numbers of steps.

    python -m benchmarks.actions [--seeds 3] [--steps 5 …] [--json]

The world is that of `benchmarks.learning`, where the least error of static decisions is known for
each set of actions. Printed is the share of the synchronous sampler's error that is left: in
theory, and on held-out noise by modules of each set, trained at one K
and at K drawn from their whole range, with the standard error over the seeds. All trainings take as
many iterations of as many images.
"""

from __future__ import annotations

import json as json_module
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine import LearnedDeviation, Synchronous
from asyncdiff_cli.engine.policies.actions import DEVIATION, SCALING, SPACING, of_steps
from asyncdiff_cli.engine.training.recipe_files import parse_recipe
from benchmarks import options
from benchmarks.learning import MINI, WORLD, held_out_error

SETS: dict[str, tuple[str, ...]] = {
    "deviation": (DEVIATION,),
    "velocity scale": (SCALING,),
    "deviation and velocity scale": (DEVIATION, SCALING),
    "grid": (SPACING,),
    "grid and deviation": (SPACING, DEVIATION),
}
"""Sets of actions; no module decides the grid alone."""
STEPS = (5, 8, 10, 15)


def left(actions: Sequence[str], steps: Sequence[int], settings: dict[str, Any]) -> list[float]:
    """Train a module, and measure the share of the error that it leaves at each K.

    Args:
        steps: what it is trained at: one K, or the ends of a range and what is between.
    """
    several = {"step_range": [min(steps), max(steps)]} if len(steps) > 1 else {}
    recipe = parse_recipe(
        {**MINI, "num_inference_steps": steps[0], "actions": actions, **several, **settings}
    )
    with tempfile.TemporaryDirectory() as directory:
        trainer = WORLD.trainer(recipe, Path(directory) / "run")
        for _ in trainer.train():
            pass
        learned, shares = LearnedDeviation(trainer.state.current), []
        for number in steps:
            assert trainer.held_out is not None
            trainer.held_out = replace(trainer.held_out, steps=number)
            errors = [held_out_error(trainer, policy) for policy in (learned, Synchronous())]
            shares.append(errors[0] / errors[1])
    return shares


def measured(
    steps: Sequence[int], seeds: int, settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row a set of actions and K."""
    console = Console(stderr=True)
    for name, actions in track(SETS.items(), console=console, disable=not console.is_terminal):
        runs = [{**settings, "seed": seed} for seed in range(seeds if of_steps(actions) else 0)]
        mixed = [left(actions, steps, run) for run in runs]
        for place, number in enumerate(steps):
            synchronous = float(WORLD.error(torch.zeros(number - 1).double()))
            alone = [left(actions, [number], run)[0] for run in runs]
            yield {
                "actions": name,
                "steps": number,
                "theory": WORLD.least_error(number, actions) / synchronous,
                "alone": alone,
                "mixed": [shares[place] for shares in mixed],
            }


def main(
    seeds: Annotated[int, typer.Option(min=2)] = 3,
    steps: Annotated[list[int] | None, typer.Option(help="K; default 5, 8, 10 and 15.")] = None,
    iterations: Annotated[int, typer.Option(min=2)] = 36,
    learning_rate: Annotated[float, typer.Option(min=0)] = 3e-3,
    json: options.Json = False,
) -> None:
    """Compare what modules decide, where the least error of each is known."""
    render.quiet_libraries()
    settings = {"iterations": iterations, "learning_rate": learning_rate}
    settings["evaluation"] = {"every": iterations, "prompts": 96, "patience": None}
    rows = list(measured(steps or STEPS, seeds, settings))
    report = {"seeds": seeds, **settings, "world": list(WORLD.spectra), "rows": rows}
    print(json_module.dumps(report)) if json else _print(report)


def _print(report: dict[str, Any]) -> None:
    table = Table("actions", "K", "least error left", "trained at K", "trained at all K")
    for row in report["rows"]:
        table.add_row(
            row["actions"],
            str(row["steps"]),
            f"{row['theory']:.2f}",
            *(_mean(row[name]) for name in ("alone", "mixed")),
        )
    Console().print(table)


def _mean(values: list[float]) -> str:
    if not values:
        return "–"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):.2f} ± {error:.2f}"


if __name__ == "__main__":
    typer.run(main)
