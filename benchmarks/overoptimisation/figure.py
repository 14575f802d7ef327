"""The front of detail against noise along the trainings, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asyncdiff_cli.engine.evaluation.set_metrics import NAMES as SET_METRICS
from asyncdiff_cli.engine.figures.style import (
    GREY,
    LARGE_CHART,
    MARKERS,
    SERIES_COLOURS,
    figure_style,
    finish,
    legend_above,
    legend_below,
    panel_axes,
)
from asyncdiff_cli.engine.rewards import GUARD
from benchmarks.overoptimisation.study import SAID

Report = Mapping[str, Any]
EARLY = "kept, had it stopped early"


def front(points: Sequence[tuple[float, float]], sign: float = 1.0) -> list[tuple[float, float]]:
    """The points that no other one beats in both, from the cleanest on.

    Args:
        points: of (noise, detail); more of the first is better.
        sign: −1 where less of the second is better.
    """
    kept: list[tuple[float, float]] = []
    for noise, detail in sorted(points, key=lambda p: (-p[0], -sign * p[1])):
        if not kept or sign * detail > sign * kept[-1][1]:
            kept.append((noise, detail))
    return kept


def front_figure(report: Report) -> Figure:
    """Each metric over residual noise along the trainings, both less those of synchronous sampling.

    A line is a training, from its first checkpoint on; the full point is the module that it kept,
    the ringed one that which early stopping would have kept. Grey is the front: no module is better
    in both.
    """
    names = [m for m in report["runs"][0]["points"][0]["metrics"] if m != GUARD]
    with figure_style():
        figure, panels = panel_axes(len(names), None, LARGE_CHART)
        for axes, metric in zip(panels, names, strict=True):
            _draw(axes, report["runs"], metric)
            finish(axes, metric)
        panels[0].plot([], [], "o", color=GREY, markersize=4, label="kept")
        panels[0].plot([], [], "o", color=GREY, markersize=8, markerfacecolor="none", label=EARLY)
        legend_below(figure, "difference of residual noise (−σ of 255; ← noisier, cleaner →)")
        figure.supylabel("difference to synchronous sampling", fontsize=8)
        legend_above(figure, panels)
    return figure


def _draw(axes: Axes, runs: Sequence[Report], metric: str) -> None:
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.axvline(0, color=GREY, linewidth=0.5)
    places = {own["run"]: [_place(point, metric) for point in own["points"]] for own in runs}
    everyone = [(0.0, 0.0), *(place for of_run in places.values() for place in of_run)]
    sign = -1.0 if metric in SET_METRICS else 1.0
    axes.plot(
        *np.transpose(front(everyone, sign)), color=GREY, linewidth=3, alpha=0.3, label="front"
    )
    for number, own in enumerate(runs):
        colour, marker = SERIES_COLOURS[number], MARKERS[number]
        x, y = np.transpose(places[own["run"]])
        look = {"color": colour, "marker": marker, "markerfacecolor": "white", "markersize": 3}
        axes.plot(x, y, linewidth=0.8, label=SAID[own["run"]], **look)
        for point, place in zip(own["points"], places[own["run"]], strict=True):
            if point["iteration"] == own["kept"]:
                axes.plot(*place, marker, color=colour, markersize=4)
            if point["iteration"] == own["early_kept"]:
                axes.plot(*place, "o", color=colour, markerfacecolor="none", markersize=8)


def _place(point: Report, metric: str) -> tuple[float, float]:
    return point["metrics"][GUARD]["difference"], point["metrics"][metric]["difference"]
