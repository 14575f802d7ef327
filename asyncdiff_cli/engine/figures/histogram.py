"""The paper's Figures 3 and 4 with our numbers: how policies decide."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.summary import AT_BOUND, Result
from asyncdiff_cli.engine.figures.style import (
    GREY,
    LARGE_CHART,
    SERIES_COLOURS,
    figure_style,
    legend_below,
    panel_axes,
    wrapped,
)

ROW, BAR_HEIGHT = 0.24, 0.85
"""Inches of a histogram's row, and the share of it that its bars may fill."""
BINS = 41
"""Bins of a histogram: an odd number, so that no deviation is in the middle of a bin."""

Run = Result | tuple[np.ndarray, float]
"""A result, or deviations [n, K − 1] and their bound."""


INERT = 0.02
"""Share of the way from noise to image: nothing is seen of a decision whose step is shorter."""


class Distribution(NamedTuple):
    """How a run's deviations are distributed, decision by decision."""

    deviations: np.ndarray
    """[n, K − 1]."""
    edges: np.ndarray
    """The edges of the bins, [BINS + 1]: over the bound, or over all values where there is none."""
    counts: np.ndarray
    """[K − 1, BINS]."""
    at_bound: np.ndarray | None
    """Shares of images at the lower and at the upper end, [2, K − 1]; None without a bound."""
    inert: np.ndarray
    """Whether the step after a decision is too short for it to be seen, [K − 1]."""


def histogram_figure(runs: Mapping[str, Run], width: float | None = None) -> Figure:
    """How deviations are distributed at each decision, before γ (the paper's Figures 3 and 4).

    A chart per run with a row per decision, from the first one down: a histogram over the bound in
    BINS bins, as high as its own fullest bin; a black line at its mean; and at its right the share
    of images at either end of the bound. A decision whose step is too short to be seen is inert.

    Args:
        runs: by label; results, or deviations [n, K − 1] with their bound.
        width: in inches; default COLUMN for one run, else PAGE.

    Raises:
        InputError: for no run, or one without images or decisions.
    """
    by_label = {label: _distribution(label, run) for label, run in runs.items()}
    if not by_label:
        raise InputError("there is no run to plot")
    steps = max(len(distribution.counts) for distribution in by_label.values())
    with figure_style():
        figure, panels = panel_axes(len(by_label), width, (LARGE_CHART[0], 0.6 + steps * ROW))
        colours = itertools.cycle(SERIES_COLOURS[:-1])  # the last one is black, as the means are
        for axes, label, colour in zip(panels, by_label, colours, strict=False):
            _ridges(axes, by_label[label], colour)
            mean = by_label[label].deviations.mean()
            axes.set_title(f"{wrapped(label, LARGE_CHART[0])}\nmean D {mean:+.3f}")
        legend_below(figure, "deviation D (in grid intervals); black: means")
        figure.supylabel("step k", fontsize=8)
    return figure


def histogram_csv(runs: Mapping[str, Run]) -> str:
    """The histograms as CSV, a line per run, step and bin.

    Columns: run, step (k from 1), n, mean, std (over the images, of n), at_lower and at_upper (the
    shares of images at either end of the bound, empty without one), bin_low, bin_high, count.

    Raises:
        InputError: as `histogram_figure`.
    """
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(
        ["run", "step", "n", "mean", "std", "at_lower", "at_upper", "bin_low", "bin_high", "count"]
    )
    for label, run in runs.items():
        deviations, edges, counts, at_bound, _ = _distribution(label, run)
        for row, numbers in enumerate(counts):
            values = deviations[:, row]
            ends = ["", ""] if at_bound is None else at_bound[:, row].tolist()
            head = [label, row + 1, len(values), float(values.mean()), float(values.std()), *ends]
            bins = zip(edges[:-1].tolist(), edges[1:].tolist(), numbers.tolist(), strict=True)
            lines.writerows([*head, *line] for line in bins)
    return file.getvalue()


def _distribution(label: str, run: Run) -> Distribution:
    deviations, bound = (run.deviations, run.setting.bound) if isinstance(run, Result) else run
    values = np.asarray(deviations, np.float64)
    if values.ndim != 2 or not values.size:
        raise InputError(f"{label} has no decisions: its deviations are {list(values.shape)}")
    bounded = math.isfinite(bound)
    limit = bound if bounded else 1.05 * float(np.abs(values).max()) or 1.0
    edges = np.linspace(-limit, limit, BINS + 1)
    inside = values.clip(-limit, limit)  # what rounding has put outside
    counts = np.stack([np.histogram(column, edges)[0] for column in inside.T])
    near = AT_BOUND * limit
    ends = np.stack([(values <= -near).mean(0), (values >= near).mean(0)]) if bounded else None
    sizes = run.step_sizes if isinstance(run, Result) and run.grid else np.ones(len(counts))
    return Distribution(values, edges, counts, ends, sizes < INERT)


def _ridges(axes: Axes, distribution: Distribution, colour: str) -> None:
    """A histogram per row, the first at the top, at heights 0, −1, −2 …"""
    rows, limit = len(distribution.counts), distribution.edges[-1]
    for row, counts in enumerate(distribution.counts):
        heights = BAR_HEIGHT * counts / counts.max() - row
        axes.stairs(heights, distribution.edges, baseline=-row, fill=True, color=colour, alpha=0.6)
        axes.axhline(-row, color="#cccccc", linewidth=0.5)
        mean = distribution.deviations[:, row].mean()
        axes.plot([mean, mean], [-row, BAR_HEIGHT - row], color="black", linewidth=1)
    middles = BAR_HEIGHT / 2 - np.arange(rows)
    if distribution.at_bound is not None:
        beside = axes.get_yaxis_transform()
        for y, share in zip(middles, distribution.at_bound.sum(0), strict=True):
            axes.text(1.02, y, f"{share:.0%}", transform=beside, fontsize=7, va="center")
        axes.text(1.02, 1, "at bound", transform=beside, fontsize=7)
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    names = [f"{row + 1}{' inert' if distribution.inert[row] else ''}" for row in range(rows)]
    axes.set_yticks(middles, names)
    axes.set(xlim=(-limit, limit), ylim=(0.9 - rows, 1))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2.5, 5, 10]))
