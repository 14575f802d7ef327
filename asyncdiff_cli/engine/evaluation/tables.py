"""A summary as tables, whatever they are written in.

A metric's mean has beside it the paired difference to the baseline with the 95 % interval. Where
the paper has measured the same backbone on the same dataset, its rows follow in a block of their
own. Best and second best are marked as in the paper's Tables 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asyncdiff_cli.engine.evaluation import paper
from asyncdiff_cli.engine.evaluation.cells import (
    Cell,
    Mark,
    deviation_cell,
    digits_of,
    has_best,
    heading,
    marks,
    metric_cell,
)
from asyncdiff_cli.engine.evaluation.set_metrics import NAMES as SET_METRICS
from asyncdiff_cli.engine.evaluation.setting import Setting
from asyncdiff_cli.engine.evaluation.summary import Result, Summary

OURS = "asyncdiff"


@dataclass(frozen=True)
class TableBlock:
    """Rows of one source under a title of their own."""

    source: str
    """OURS, or a table of the paper."""
    title: str
    columns: tuple[str, ...]
    """Names of settings and metrics."""
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def of(
        cls, source: str, title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]
    ) -> TableBlock:
        """Rows are by column; those of other columns are left out."""
        cells = tuple(tuple(row[name] for name in columns) for row in rows)
        return cls(source, title, tuple(columns), cells)


def blocks(summary: Summary, every_column: bool = False) -> list[TableBlock]:
    """The rows of a summary, and the paper's where it has the same backbone and dataset.

    Args:
        every_column: also those settings in which no row differs.
    """
    ours, theirs = our_block(summary, every_column), papers_results(summary)
    return [ours] if theirs is None else [ours, _paper_block(theirs, every_column)]


def category_blocks(summary: Summary) -> list[TableBlock]:
    """A block per reward with a column per category, as T2I-CompBench's tables have."""
    return [_category_block(summary, metric) for metric in summary.rewards if summary.categories]


def first_category_blocks(summary: Summary) -> list[TableBlock]:
    """The blocks of the first reward, and of what other programs have measured."""
    metrics = dict.fromkeys([*summary.rewards[:1], *summary.imported])
    return [_category_block(summary, metric) for metric in metrics if summary.categories]


def papers_results(summary: Summary) -> paper.PaperResults | None:
    settings = summary.settings
    return paper.reported(settings.get("backbone", ""), settings.get("dataset", ""))


def _differing(summary: Summary) -> list[str]:
    """The settings in which rows differ, beside the policy."""
    settings = [result.setting for result in summary.results]
    differs = {
        "gamma": any(setting.gamma != 1 for setting in settings),
        "steps": len({setting.steps for setting in settings}) > 1,
        "bound": len({r.setting.bound for r in summary.results if not r.is_baseline}) > 1,
    }
    return [name for name in differs if differs[name]]


def our_block(summary: Summary, every_column: bool) -> TableBlock:
    differing = ["gamma", "steps", "bound"] if every_column else _differing(summary)
    columns = ["policy", *differing, "mean_deviation", *summary.metrics]
    cells = {metric: _cells(summary, metric) for metric in summary.metrics}
    rows = [
        setting_cells(result)
        | {metric: by_setting[result.setting] for metric, by_setting in cells.items()}
        for result in summary.results
    ]
    return TableBlock.of(OURS, _title(summary) + _compared(summary), columns, rows)


def _category_block(summary: Summary, metric: str) -> TableBlock:
    columns = {
        f"{name} ({part.prompts:,})": _cells(part, metric)
        for name, part in summary.categories.items()
    }
    rows = [
        setting_cells(result)
        | {name: cells.get(result.setting, Cell(None, "")) for name, cells in columns.items()}
        for result in summary.results
    ]
    title = f"{heading(metric)} by category ({_title(summary)})"
    return TableBlock.of(OURS, title, ["policy", *_differing(summary), *columns], rows)


def _cells(summary: Summary, metric: str) -> dict[Setting, Cell]:
    """The metric of each row; none where nothing of a category was scored."""
    if metric not in summary.metrics:
        return {}
    marked = zip(summary.results, _marks_by_steps(summary, metric), strict=True)
    return {
        result.setting: metric_cell(metric, result.metrics[metric], not result.is_baseline, mark)
        for result, mark in marked
    }


def _paper_block(theirs: paper.PaperResults, every_column: bool) -> TableBlock:
    settings = ["gamma", "steps", "bound"] if every_column else []
    best = {
        metric: marks([row.metrics[metric] for row in theirs.rows], digits_of(metric))
        for metric in paper.METRICS
    }
    rows = [
        {
            "policy": Cell(row.policy, row.policy),
            "gamma": Cell(1.0, ""),
            "steps": Cell(theirs.steps, str(theirs.steps)),
            "bound": Cell(row.bound, ""),
            "mean_deviation": deviation_cell(row.mean_deviation),
        }
        | {
            metric: Cell(mean, f"{mean:.{digits_of(metric)}f}", mark=best[metric][place])
            for metric, mean in row.metrics.items()
        }
        for place, row in enumerate(theirs.rows)
    ]
    source = f"AsyncDiff paper, Table {theirs.table}"
    title = f"{source}: {theirs.model} on {theirs.dataset}, {theirs.steps} steps"
    columns = ["policy", *settings, "mean_deviation", *paper.METRICS]
    return TableBlock.of(source, title, columns, rows)


def _marks_by_steps(summary: Summary, metric: str) -> list[Mark]:
    """The marks of every row, among those of as many steps."""
    marked: list[Mark] = [""] * len(summary.results)
    if not has_best(metric):
        return marked
    steps = [result.setting.steps for result in summary.results]
    for count in set(steps):
        places = [place for place, number in enumerate(steps) if number == count]
        sign = -1 if metric in SET_METRICS else 1  # they are distances
        means = [sign * summary.results[place].metrics[metric].mean for place in places]
        for place, mark in zip(places, marks(means, digits_of(metric)), strict=True):
            marked[place] = mark
    return marked


def setting_cells(result: Result) -> dict[str, Cell]:
    policy, gamma, bound, steps = result.setting
    bounded = math.isfinite(bound) and not result.is_baseline
    return {
        "policy": Cell(policy, policy),
        "gamma": Cell(gamma, "" if result.is_baseline else f"{gamma:g}"),
        "steps": Cell(steps, str(steps)),
        "bound": Cell(bound if bounded else None, f"{bound:g}" if bounded else ""),
        "mean_deviation": deviation_cell(result.mean_deviation),
    }


def _title(summary: Summary) -> str:
    names = [str(summary.settings[k]) for k in ("backbone", "dataset") if k in summary.settings]
    steps = {result.setting.steps for result in summary.results}
    parts = [
        " on ".join(names),
        f"{steps.pop()} steps" if len(steps) == 1 else "",
        f"{summary.prompts} prompts",
        f"{summary.partial} more not complete" if summary.partial else "",
    ]
    what = "mean, and paired difference to the baseline with its 95 % interval"
    return f"{', '.join(filter(None, parts))}: {what}"


def _compared(summary: Summary) -> str:
    """What set metrics were measured against, to stand behind a title."""
    metrics = summary.settings.get("set_metrics", {})
    if not summary.set_metrics or not metrics:
        return ""
    images = next(iter(metrics.values()))["reference_images"]
    return f"; ↓: distance of all {summary.prompts:,} pictures to {images:,} of the reference"
