"""The curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.figures.style import (
    GREY,
    SERIES_COLOURS,
    SMALL_CHART,
    figure_style,
    finish,
    legend_above,
    legend_below,
    panel_axes,
)
from asyncdiff_cli.engine.rewards import COMPOSITE


def training_figure(rows: Sequence[Mapping[str, Any]], width: float | None = None) -> Figure:
    """A training, from the rows of its metrics.jsonl: rewards and deviations over iterations.

    Of each reward there is the running mean over iterations, for each iteration has other prompts;
    and the means of the held-out evaluations with the 95 % intervals of their paired differences
    to the baseline, which is a dashed line. The last chart has the running mean of each step's
    deviation, as drawn while training.

    Args:
        width: in inches; default PAGE.

    Raises:
        InputError: if there is no iteration among the rows.
    """
    iterations = [row for row in rows if "rewards" in row]
    evaluations = [row for row in rows if "held_out" in row]
    if not iterations:
        raise InputError("there is no iteration to plot yet")
    names = dict.fromkeys(name for row in iterations for name in row["rewards"])
    names |= dict.fromkeys(name for row in evaluations for name in row["held_out"])
    with figure_style():
        figure, panels = panel_axes(len(names) + 1, width, SMALL_CHART)
        for axes, name in zip(panels, names, strict=False):
            _draw_training(axes, name, iterations)
            _draw_held_out(axes, name, evaluations)
            finish(axes, name, integers=True)
        _draw_deviations(panels[-1], iterations)
        for axes in panels:
            axes.set_xlim(0, 1.03 * max(row["iteration"] for row in rows))
        legend_below(figure, "iteration")
        legend_above(figure, panels)
    return figure


def _draw_training(axes: Axes, name: str, iterations: Sequence[Mapping[str, Any]]) -> None:
    """The reward of the iterations' own images, for one that they have."""
    points = [
        (row["iteration"], row["composite"] if name == COMPOSITE else row["rewards"][name]["raw"])
        for row in iterations
        if name in row["rewards"] or (name == COMPOSITE and name in row)
    ]
    if points:
        _draw_running_mean(axes, points, SERIES_COLOURS[0], "training, running mean")


def _draw_held_out(axes: Axes, name: str, evaluations: Sequence[Mapping[str, Any]]) -> None:
    """The evaluations' means and intervals, and the baseline that they are compared with."""
    by_iteration = [(row["iteration"], row["held_out"].get(name)) for row in evaluations]
    compared = [(n, metric) for n, metric in by_iteration if isinstance(metric, Mapping)]
    means = [metric for _, metric in by_iteration if isinstance(metric, int | float)]
    means += [metric["mean"] - metric["difference"] for _, metric in compared]
    if means:
        axes.axhline(
            means[0], color=GREY, linestyle="--", linewidth=0.8, label="held out, baseline"
        )
    if compared:
        bars = [(d["difference"] - d["low"], d["high"] - d["difference"]) for _, d in compared]
        axes.errorbar(
            [n for n, _ in compared],
            [metric["mean"] for _, metric in compared],
            np.transpose(bars),
            color=SERIES_COLOURS[1],
            marker="o",
            markersize=3,
            elinewidth=0.8,
            linestyle="",
            label="held out, 95 % interval",
        )


def _draw_deviations(axes: Axes, iterations: Sequence[Mapping[str, Any]]) -> None:
    """The running mean deviation of each step, from dark to light; iterations may differ in K."""
    most = max(len(row["deviation"]["mean"]) for row in iterations)
    colours = ScalarMappable(Normalize(1, max(2, 1.15 * most)), "viridis")  # its end is too light
    for step in range(most):
        points = [
            (row["iteration"], row["deviation"]["mean"][step])
            for row in iterations
            if step < len(row["deviation"]["mean"])
        ]
        _draw_running_mean(axes, points, colours.to_rgba(np.array(step + 1)))
    bar = axes.figure.colorbar(colours, ax=axes, label="step k", ticks=MaxNLocator(4, integer=True))
    bar.outline.set_visible(False)
    bar.ax.set_ylim(1, max(2, most))
    finish(axes, "mean deviation\n(grid intervals)", integers=True)


def _draw_running_mean(
    axes: Axes, points: Sequence[tuple[float, float]], colour: Any, label: str | None = None
) -> None:
    """Draw the mean over a 25th of the points around each; over fewer at the ends."""
    x, y = np.transpose(points)
    window = np.ones(2 * (len(y) // 50) + 1)
    mean = np.convolve(y, window, "same") / np.convolve(np.ones_like(y), window, "same")
    marker = "" if len(y) > 1 else "o"
    axes.plot(x, mean, color=colour, linewidth=0.8, marker=marker, label=label)
