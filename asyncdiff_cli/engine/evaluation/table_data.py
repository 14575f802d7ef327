"""Tables of a summary for programs: CSV and JSON values, in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from asyncdiff_cli.engine.evaluation.cells import Cell
from asyncdiff_cli.engine.evaluation.summary import Result, Summary
from asyncdiff_cli.engine.evaluation.tables import blocks, our_block, papers_results, setting_cells
from asyncdiff_cli.engine.statistics import Difference


def to_csv(summary: Summary) -> str:
    """A line per row of all blocks, in full precision and with every column.

    A metric m of ours has the columns m (the mean), m_difference, m_low, m_high and m_n. The
    paper's rows have the means alone; `source` tells them apart. Rows of one category follow, for a
    set that has some. What a row lacks is empty.
    """
    every = [("", block) for block in blocks(summary, every_column=True)]
    every += [(name, our_block(part, True)) for name, part in summary.categories.items()]
    records = [
        {"source": block.source}
        | ({"category": category} if summary.categories else {})
        | _record(block.columns, row)
        for category, block in every
        for row in block.rows
    ]
    names = dict.fromkeys(name for record in records for name in record)
    file = io.StringIO()
    rows = csv.DictWriter(file, list(names), lineterminator="\n")
    rows.writeheader()
    rows.writerows(records)
    return file.getvalue()


def _record(columns: Sequence[str], row: Sequence[Cell]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, (value, *_) in zip(columns, row, strict=True):
        if isinstance(value, Difference):
            record[name] = value.mean
            beside = {key: number for key, number in vars(value).items() if key != "mean"}
            record |= {f"{name}_{key}": number for key, number in beside.items()}
        else:
            record[name] = value
    return record


def to_json(summary: Summary) -> dict[str, Any]:
    """JSON values: our rows with differences and deviations by step, and the paper's, if any."""
    theirs = papers_results(summary)
    return {
        "settings": dict(summary.settings),
        "prompts": summary.prompts,
        "partial": summary.partial,
        "rows": [
            {
                **{name: theirs.value for name, theirs in setting_cells(result).items()},
                "deviations": result.deviations.mean(0).tolist(),
                "at_bound": result.at_bound.tolist(),
                "seconds": result.seconds,
                "metrics": {name: vars(paired) for name, paired in result.metrics.items()},
                **_categories(summary, result),
            }
            for result in summary.results
        ],
        "paper": theirs and {
            "source": f"AsyncDiff paper, Table {theirs.table}",
            "steps": theirs.steps,
            "rows": [row._asdict() for row in theirs.rows],
        },
    }  # fmt: skip


def _categories(summary: Summary, result: Result) -> dict[str, Any]:
    """A row's metrics by category, for a set that has some."""
    metrics = {
        name: {metric: vars(value) for metric, value in same.metrics.items()}
        for name, part in summary.categories.items()
        if (same := part.result(result.setting)) is not None
    }
    return {"categories": metrics} if metrics else {}
