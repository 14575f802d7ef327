"""The part of a report that shows a training run: its curves, evaluations, samples and recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from asyncdiff_cli.engine import yaml12
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.cells import Cell, deviation_cell, digits_of, metric_cell
from asyncdiff_cli.engine.evaluation.tables import OURS, TableBlock
from asyncdiff_cli.engine.figures.charts import Chart, inline_chart
from asyncdiff_cli.engine.figures.tiles import Grid, sample_grid
from asyncdiff_cli.engine.figures.training import training_figure
from asyncdiff_cli.engine.files import inside
from asyncdiff_cli.engine.reading import read_text
from asyncdiff_cli.engine.statistics import Difference
from asyncdiff_cli.engine.training.run import RECIPE, RunDirectory

TRAINING_CAPTION = (
    "The rewards of the training's own images and of the held-out prompts, and the mean deviation"
    " of each step, over the iterations."
)


@dataclass(frozen=True)
class RunPart:
    """What the template shows of a training run."""

    facts: Mapping[str, Any]
    charts: Sequence[Chart]
    held_out: Sequence[TableBlock]
    warnings: Sequence[str]
    grid: Grid
    recipe: str


def run_part(run: RunDirectory) -> RunPart:
    """What is shown of a training run. Raises: as `write_report`."""
    recipe, rows = read_text(inside(run.path, RECIPE)), run.rows()
    done, best = done_and_best(rows)
    return RunPart(
        run_facts(recipe, done, best),
        [inline_chart(training_figure(rows), "chart-training", TRAINING_CAPTION)] if done else [],
        held_out_table(rows, best),
        [row["warning"] for row in rows if "warning" in row],
        sample_grid(run, best),
        recipe,
    )


def done_and_best(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int | None]:
    """How many iterations are done, and the best of them by held-out reward, if that is known."""
    done = max((row["iteration"] for row in rows if "rewards" in row), default=0)
    return done, next((row["best"] for row in reversed(rows) if "best" in row), None)


def run_facts(recipe: str, done: int, best: int | None) -> dict[str, Any]:
    """The recipe in short, and how far the run is.

    Raises:
        InputError: if the recipe is damaged.
    """
    try:
        settings = dict(yaml12.load(recipe))
        rewards = ", ".join(f"{name} × {w:g}" for name, w in settings["rewards"].items())
        names = ("backbone", "prompts", "bound", "num_inference_steps")
        facts = {name.removeprefix("num_inference_"): settings[name] for name in names}
        facts |= {"rewards": rewards, "iterations": f"{done:,} of {settings['iterations']:,}"}
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise InputError(f"the run's {RECIPE} is damaged") from None
    return facts if best is None else facts | {"best by held-out reward": f"iteration {best:,}"}


def held_out_table(rows: Sequence[Mapping[str, Any]], best: int | None) -> list[TableBlock]:
    """The run's evaluations as a table, the baseline first."""
    evaluations = [row for row in rows if "held_out" in row]
    metrics = list(dict.fromkeys(name for row in evaluations for name in row["held_out"]))
    table = [
        {
            "iteration": Cell(row["iteration"], _iteration(row, best)),
            "mean_deviation": _mean_deviation(row),
            **{name: _held_out_cell(name, row["held_out"].get(name)) for name in metrics},
        }
        for row in evaluations
    ]
    title = (
        "Held-out prompts: mean, and paired difference to the baseline with its 95 % interval."
        " The composite is in standard deviations of the baseline"
    )
    columns = ["iteration", "mean_deviation", *metrics]
    return [TableBlock.of(OURS, title, columns, table)] if evaluations else []


def _iteration(row: Mapping[str, Any], best: int | None) -> str:
    iteration = row["iteration"]
    return (
        f"{iteration:,}, best"
        if iteration == best
        else f"{iteration:,}"
        if iteration
        else "baseline"
    )


def _mean_deviation(row: Mapping[str, Any]) -> Cell:
    values = row.get("deviation", [0.0])
    return deviation_cell(sum(values) / max(1, len(values)))


def _held_out_cell(metric: str, entry: Any) -> Cell:
    """The cell of a comparison, or of the baseline's mean, which has no composite."""
    if isinstance(entry, Mapping):
        return metric_cell(metric, Difference(**entry))
    return Cell(entry, "" if entry is None else f"{entry:.{digits_of(metric)}f}")
