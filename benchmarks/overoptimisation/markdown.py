"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncdiff_cli.engine.evaluation.cells import heading
from benchmarks.evidence.markdown import difference
from benchmarks.overoptimisation.study import MIX, SAID
from benchmarks.reports import table_of

Report = Mapping[str, Any]


def to_markdown(report: Report) -> str:
    """A table for each training, with what it kept and what early stopping would have kept."""
    parts = [
        f"# Over-optimisation: {report['backbone']}, {report['steps']} steps\n\n"
        f"Differences to synchronous sampling on {report['prompts']} held-out prompts, paired, with"
        f" 95 % intervals. The composite is that of {SAID[MIX]}, for all trainings."
    ]
    for own in report["runs"]:
        weights = ", ".join(f"`{name}` {weight:g}" for name, weight in own["rewards"].items())
        parts += [f"## {SAID[own['run']]}: {weights}", _stopping(own), _table(own)]
    return "\n\n".join([*parts, *report["notes"]]) + "\n"


def _stopping(own: Report) -> str:
    text = f"It kept the module of iteration {own['kept']}."
    if own["early_stop"] is None:
        return f"{text} Early stopping would not have ended it."
    return (
        f"{text} Early stopping would have ended it after {own['early_stop']}, with that of"
        f" {own['early_kept']}."
    )


def _table(own: Report) -> str:
    metrics = [*own["points"][0]["metrics"]]
    signs = {own["early_kept"]: " (early)", own["kept"]: " (kept)"}
    lines = [["iteration", *map(heading, metrics)], ["---:", *["---"] * len(metrics)]]
    for point in own["points"]:
        number = point["iteration"]
        cells = (difference(metric, point["metrics"][metric]) for metric in metrics)
        lines.append([f"{number}{signs.get(number, '')}", *cells])
    return table_of(lines)
