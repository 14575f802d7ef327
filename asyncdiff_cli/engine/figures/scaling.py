"""The paper's Figure 2 with our numbers: what γ does, and what it costs in noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import offset_copy

from asyncdiff_cli.engine.backbones.registry import BASELINE
from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.summary import Result, Summary
from asyncdiff_cli.engine.figures.style import (
    FIXED,
    GREY,
    LARGE_CHART,
    LIFTED_BOUND,
    MARKERS,
    SERIES_COLOURS,
    SMALL_CHART,
    figure_style,
    finish,
    legend_above,
    legend_below,
    logarithmic,
    panel_axes,
)
from asyncdiff_cli.engine.rewards import GUARD

AXES = {
    "gamma": "scaling of the deviation, γ",
    "deviation": "mean deviation, γ·D (in grid intervals)",
    "steps": "number of steps, K",
}
"""What a summary can be plotted over."""


class Series(NamedTuple):
    """Settings of one colour and marker."""

    label: str
    results: tuple[Result, ...]
    """The results in the order of x."""


def scaling_figure(summary: Summary, axis: str = "gamma", width: float | None = None) -> Figure:
    """Each metric over γ, in a chart of its own (the paper's Figure 2).

    Points are means over the prompts. Their bars are the 95 % intervals of the paired difference
    to the baseline of as many steps, put around the mean: what counts is how a setting differs
    from the baseline on the same prompts and noise, and not how the prompts differ. The baseline
    is a dashed line, and where each line begins. A lifted policy of γ = 1 alone is a point, drawn a
    little beside γ = 1: it is another module, and no scaling of the first one's deviations.

    Args:
        axis: "gamma"; "deviation", for settings such as fixed:D; or "steps".
        width: in inches; default COLUMN for one metric, else PAGE.

    Raises:
        InputError: for another axis.
    """
    series = _series(summary, axis)
    with figure_style():
        figure, panels = panel_axes(
            len(summary.metrics), width, LARGE_CHART if len(summary.metrics) == 1 else SMALL_CHART
        )
        for axes, metric in zip(panels, summary.metrics, strict=True):
            for base in (r for r in summary.results if r.is_baseline and axis != "steps"):
                mean = base.metrics[metric].mean
                axes.axhline(mean, color=GREY, linestyle="--", linewidth=0.8, label=BASELINE)
            for number, line in enumerate(series):
                differences = [result.metrics[metric] for result in line.results]
                bars = [(f.difference - f.low, f.high - f.difference) for f in differences]
                drawn = axes.errorbar(
                    [_x(result, axis) for result in line.results],
                    [f.mean for f in differences],
                    None if line.label == BASELINE else np.transpose(bars),
                    label=line.label,
                    **_look(line, number),
                )
                if axis == "gamma" and len(line.results) == 1:  # lines have points there, too
                    aside = offset_copy(axes.transData, figure, 2.5, units="points")
                    for artist in drawn.get_children():
                        artist.set_transform(aside)
            finish(axes, metric)
            if axis == "steps":
                logarithmic(axes, sorted({result.setting.steps for result in summary.results}))
        legend_below(figure, AXES[axis])
        legend_above(figure, panels)
    return figure


def noise_figure(summary: Summary, axis: str = "gamma", width: float | None = None) -> Figure:
    """What each metric gains over what the residual-noise guard loses, to the baseline.

    Points to the left are noisier than the baseline, which is where the zeros cross: a gain there
    was bought with noise. Bars are 95 % intervals of paired differences, both ways; the numbers at
    the points are the values of `axis`, in whose order they are joined.

    Args:
        axis, width: as of `scaling_figure`.

    Raises:
        InputError: for another axis, or a summary without the guard or any other metric.
    """
    metrics = [name for name in summary.rewards if name != GUARD]
    if not metrics or len(metrics) == len(summary.rewards):
        rewards = ", ".join(summary.rewards)
        raise InputError(f"gains over noise need {GUARD} and another reward, not {rewards}")
    series = [line for line in _series(summary, axis) if line.label != BASELINE]
    with figure_style():
        figure, panels = panel_axes(len(metrics), width, LARGE_CHART)
        for axes, metric in zip(panels, metrics, strict=True):
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.axvline(0, color=GREY, linewidth=0.8)
            for number, line in enumerate(series):
                pairs = [(r.metrics[GUARD], r.metrics[metric]) for r in line.results]
                ends = [[(d.difference - d.low, d.high - d.difference) for d in p] for p in pairs]
                bars = np.transpose(ends, (1, 2, 0))
                points = [(noise.difference, gain.difference) for noise, gain in pairs]
                x, y = np.transpose(points)
                axes.errorbar(x, y, bars[1], bars[0], label=line.label, **_look(line, number))
                _number(axes, line, points, axis)
            finish(axes, metric)
        legend_below(
            figure,
            "difference of residual noise to the baseline (−σ of 255; ← noisier, cleaner →)",
            f"numbers: {AXES[axis]}",
        )
        figure.supylabel("difference to the baseline", fontsize=8)
        legend_above(figure, panels)
    return figure


def _series(summary: Summary, axis: str) -> list[Series]:
    """What to draw; over γ and D each begins at, or passes, the baseline of its steps.

    Raises:
        InputError: for an unknown axis.
    """
    check_choice("axis", axis, AXES)
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in summary.results:
        policy, _, _, steps = result.setting
        if axis == "steps":
            groups.setdefault((result.setting.label, 0), []).append(result)
        elif not result.is_baseline:
            name = FIXED if axis == "deviation" and policy.startswith(f"{FIXED}:") else policy
            groups.setdefault((name, steps), []).append(result)
    several = len({steps for _, steps in groups}) > 1
    series = []
    for (name, steps), results in groups.items():
        alone = name.startswith(LIFTED_BOUND) and all(r.setting.gamma == 1 for r in results)
        if axis != "steps" and not alone:
            results = [summary.baseline(steps), *results]
        label = f"{name} bound" if name == LIFTED_BOUND else name
        label = f"{label}, {steps} steps" if several else label
        series.append(Series(label, tuple(sorted(results, key=lambda r: _x(r, axis)))))
    return sorted(series, key=lambda line: line.label == BASELINE)  # the others keep their colours


def _x(result: Result, axis: str) -> float:
    """Where a result is on an axis. Whatever it was drawn with, the baseline has γ = D = 0."""
    if axis == "steps":
        return result.setting.steps
    if result.is_baseline:
        return 0.0
    gamma = result.setting.gamma
    return gamma if axis == "gamma" else gamma * result.mean_deviation


def _look(line: Series, number: int) -> dict[str, Any]:
    """Colour, marker and lines of the n-th series, or of the baseline."""
    look = {"elinewidth": 0.8, "linestyle": "-" if len(line.results) > 1 else ""}
    if line.label == BASELINE:
        return {**look, "color": GREY, "linestyle": "--"}
    turn, place = divmod(number, len(SERIES_COLOURS))
    return {
        **look,
        "color": SERIES_COLOURS[place],
        "marker": MARKERS[(place + turn) % len(MARKERS)],
    }


def _number(axes: Axes, line: Series, points: Sequence[tuple[float, float]], axis: str) -> None:
    """Write beside each point where it is on the axis, unless there is one alone."""
    numbers = {
        p: _x(r, axis) for r, p in zip(line.results, points, strict=True) if not r.is_baseline
    }
    halo = [withStroke(linewidth=1.5, foreground="white")]
    for point, number in numbers.items() if len(numbers) > 1 else ():
        axes.annotate(
            f"{number:.3g}",
            point,
            (3, 3),
            textcoords="offset points",
            fontsize=7,
            path_effects=halo,
        )
