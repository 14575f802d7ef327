"""The report as one figure: every row's gain over synchronous sampling, for each K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asyncdiff_cli.engine.figures.style import (
    COMPOSITE,
    GREY,
    PAGE,
    SERIES_COLOURS,
    figure_style,
    legend_above,
    legend_below,
)
from benchmarks.evidence.rows import NEEDS, SYNCHRONOUS

LINE = 0.16
"""Inches of a row."""


def evidence_figure(report: Mapping[str, Any]) -> Figure:
    """A chart for each K with the composite over synchronous sampling, and its 95 % interval.

    Rows are in the order of the first K, coloured by what they need; the dotted line is the best
    static policy. Open points take more calls than the others.
    """
    steps = report["steps"]
    names = [row["row"] for row in steps[0]["rows"] if row["row"] != SYNCHRONOUS]
    with figure_style():
        figure = Figure((PAGE, 1.1 + LINE * len(names)), layout="constrained")
        panels = list(figure.subplots(1, len(steps), sharey=True, squeeze=False).flat)
        for axes, own in zip(panels, steps, strict=True):
            _draw(axes, own, names)
        for need in NEEDS:
            if any(row["needs"] == need for row in steps[0]["rows"]):
                panels[0].errorbar([], [], xerr=[], label=f"needs {need}", **_point(need))
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()
        legend_below(figure, "composite over synchronous sampling of as many evaluations, in σ")
        legend_above(figure, panels)
    return figure


def _draw(axes: Axes, own: Mapping[str, Any], names: list[str]) -> None:
    axes.axvline(0, color=GREY, linewidth=0.8)
    for row in own["rows"]:
        found = row["metrics"][COMPOSITE]
        if row["row"] == own["static"]:
            axes.axvline(found["difference"], color=GREY, linewidth=0.8, linestyle=":")
        if row["row"] not in names:
            continue
        ends = [[found["difference"] - found["low"]], [found["high"] - found["difference"]]]
        full, place = row["calls"] <= own["calls"], names.index(row["row"])
        axes.errorbar([found["difference"]], [place], xerr=ends, **_point(row["needs"], full))
    axes.set_title(f"K = {own['steps']}")
    axes.xaxis.set_major_locator(MaxNLocator(3))


def _point(need: str, full: bool = True) -> dict[str, Any]:
    """How a row of this need is drawn."""
    colour = SERIES_COLOURS[NEEDS.index(need)]
    return {
        **{"color": colour, "marker": "o", "markersize": 3, "elinewidth": 0.8, "linestyle": ""},
        "markerfacecolor": colour if full else "white",
    }
