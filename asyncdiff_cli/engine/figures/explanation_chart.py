"""The chart of an explanation: what is left of detail at each scale, and which times were told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from asyncdiff_cli.engine.figures.explanation import Explanation
from asyncdiff_cli.engine.figures.formats import check_suffix
from asyncdiff_cli.engine.figures.style import (
    GREY,
    MARKERS,
    PAGE,
    SERIES_COLOURS,
    figure_style,
    legend_above,
    save_chart,
)

CHART_HEIGHT = 2.6
"""Inches."""


def transfer_figure(explanation: Explanation) -> Figure:
    """Size out over size in against the scale of detail, and t* against t, a line per policy.

    Coarse detail is on the left. At 1 detail comes out as large as it is in the data; below it is
    smoothed away, above it is overdone.
    """
    with figure_style():
        figure = Figure(figsize=(PAGE, CHART_HEIGHT), layout="constrained")
        detail, times = figure.subplots(1, 2, width_ratios=(3, 2))
        for number, explained in enumerate(explanation.policies):
            colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
            look = {"color": colour, "label": explained.policy}
            kept = [out / size for size, out in explained.factors]
            detail.plot(explanation.frequencies[1:], kept[1:], **look)
            marker = MARKERS[number % len(MARKERS)]
            times.plot(explanation.evaluated, explained.cond_sigmas, marker=marker, **look)
        _finish_detail(detail)
        finish_times(times, explanation.evaluated)
        legend_above(figure, [detail])
    return figure


def _finish_detail(axes: Axes) -> None:
    axes.axhline(1, color=GREY, linestyle="--", linewidth=0.8)
    axes.set(xscale="log", xlabel="detail, cycles per image", ylabel="size out over size in")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xticks([1, 2, 4, 8, 16], minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(bottom=0)


def finish_times(axes: Axes, evaluated: Sequence[float]) -> None:
    """Draw the synchronous line t* = t through the times of the evaluations, and name the axes."""
    axes.plot(evaluated, evaluated, color=GREY, linestyle="--", linewidth=0.8)
    axes.set(xlabel="time of the latent, t", ylabel="time that is told, t*")
    axes.invert_xaxis()


def write_chart(explanation: Explanation, path: Path) -> list[Path]:
    """Write the chart at `path` and as .svg, and its numbers as .json; their paths.

    Raises:
        InputError: for a suffix that is none of a figure.
        AsyncDiffError: if one cannot be written.
    """
    check_suffix(path)
    numbers = json.dumps(asdict(explanation), indent=1) + "\n"
    return save_chart(transfer_figure(explanation), path, numbers, ".json")
