"""The paper's figures with our numbers: what γ does, what it costs in noise, how policies decide.

Importing this imports matplotlib, so only commands that plot do. Nothing outside is changed: the
figures have no pyplot, and their style is in force while they are built and saved. The same data
give the same bytes.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import holds, unused, write_atomically, write_text
from asyncdiff_cli.engine.rewards import GUARD
from asyncdiff_cli.engine.summary import AT_BOUND, BASELINE, Result, Summary
from asyncdiff_cli.engine.tables import heading

COLUMN, PAGE = 3.35, 7.0
"""Inches: the width of a column, and of both."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of Okabe and Ito, which colour-blind readers tell apart, without yellow: too faint on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#666666"
SMALL, LARGE = (1.6, 1.4), (2.2, 1.8)
"""Inches that a chart needs, across and down."""
ROW, HEIGHT = 0.24, 0.85
"""Inches of a histogram's row, and the share of it that its bars may fill."""
CHARACTER = 0.07
"""Inches of a character, about."""
BINS = 41
"""Of a histogram: an odd number, so that no deviation is in the middle of a bin."""
DPI = 300
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.8,
    "errorbar.capsize": 2,
    "text.parse_math": False,  # a name with dollars in it is not TeX
    # glyphs as paths: a reader without DejaVu Sans would get others, of other widths
    "svg.fonttype": "path",
    "svg.hashsalt": "asyncdiff",
    "pdf.fonttype": 42,
}
FORMATS: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What files can be, with the metadata that is left out of them."""
FIXED, LIFTED, COMPOSITE = "fixed", "lifted", "composite"
AXES = {
    "gamma": "scaling of the deviation, γ",
    "deviation": "mean deviation, γ·D (in grid intervals)",
    "steps": "number of steps, K",
}
"""What a summary can be plotted over."""
UNITS = {
    "hpsv2": "cosine",
    "hpsv2.1": "cosine",
    "clip": "cosine",
    "mini_clip": "cosine",
    "sharpness": "of 255",
    GUARD: "guard, −σ of 255",
    COMPOSITE: "in σ of the baseline",
}
"""Of metrics that have one."""
LABELS = {GUARD: "residual noise"}
"""Where a chart has more room than a table."""

Run = Result | tuple[np.ndarray, float]
"""A result, or deviations [n, K − 1] and their bound."""


class Series(NamedTuple):
    """Settings of one colour and marker."""

    label: str
    results: tuple[Result, ...]
    """In the order of x."""


INERT = 0.02
"""Of the way from noise to image: after a decision whose step is shorter, nothing of it is seen."""


class Distribution(NamedTuple):
    """How a run's deviations are distributed, decision by decision."""

    deviations: np.ndarray
    """[n, K − 1]."""
    edges: np.ndarray
    """Of the bins, [BINS + 1]: over the bound, or over all values where there is none."""
    counts: np.ndarray
    """[K − 1, BINS]."""
    at_bound: np.ndarray | None
    """Shares of images at the lower and at the upper end, [2, K − 1]; None without a bound."""
    inert: np.ndarray
    """Whether the step after a decision is too short for it to be seen, [K − 1]."""


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
        figure, panels = _panels(
            len(summary.metrics), width, LARGE if len(summary.metrics) == 1 else SMALL
        )
        for axes, metric in zip(panels, summary.metrics, strict=True):
            for base in (r for r in summary.results if r.is_baseline and axis != "steps"):
                mean = base.metrics[metric].mean
                axes.axhline(mean, color=GREY, linestyle="--", linewidth=0.8, label=BASELINE)
            for number, one in enumerate(series):
                found = [result.metrics[metric] for result in one.results]
                bars = [(f.difference - f.low, f.high - f.difference) for f in found]
                drawn = axes.errorbar(
                    [_x(result, axis) for result in one.results],
                    [f.mean for f in found],
                    None if one.label == BASELINE else np.transpose(bars),
                    label=one.label,
                    **_look(one, number),
                )
                if axis == "gamma" and len(one.results) == 1:  # lines have points there, too
                    aside = offset_copy(axes.transData, figure, 2.5, units="points")
                    for artist in drawn.get_children():
                        artist.set_transform(aside)
            _finish(axes, metric)
            if axis == "steps":
                _logarithmic(axes, sorted({result.setting.steps for result in summary.results}))
        _below(figure, AXES[axis])
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
    series = [one for one in _series(summary, axis) if one.label != BASELINE]
    with figure_style():
        figure, panels = _panels(len(metrics), width, LARGE)
        for axes, metric in zip(panels, metrics, strict=True):
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.axvline(0, color=GREY, linewidth=0.8)
            for number, one in enumerate(series):
                pairs = [(r.metrics[GUARD], r.metrics[metric]) for r in one.results]
                ends = [[(d.difference - d.low, d.high - d.difference) for d in p] for p in pairs]
                bars = np.transpose(ends, (1, 2, 0))
                points = [(noise.difference, own.difference) for noise, own in pairs]
                x, y = np.transpose(points)
                axes.errorbar(x, y, bars[1], bars[0], label=one.label, **_look(one, number))
                _number(axes, one, points, axis)
            _finish(axes, metric)
        _below(
            figure,
            "difference of residual noise to the baseline (−σ of 255; ← noisier, cleaner →)",
            f"numbers: {AXES[axis]}",
        )
        figure.supylabel("difference to the baseline", fontsize=8)
        legend_above(figure, panels)
    return figure


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
    found = {label: _distribution(label, run) for label, run in runs.items()}
    if not found:
        raise InputError("there is no run to plot")
    steps = max(len(one.counts) for one in found.values())
    with figure_style():
        figure, panels = _panels(len(found), width, (LARGE[0], 0.6 + steps * ROW))
        colours = itertools.cycle(COLOURS[:-1])  # the last one is black, as the means are
        for axes, label, colour in zip(panels, found, colours, strict=False):
            _ridges(axes, found[label], colour)
            mean = found[label].deviations.mean()
            axes.set_title(f"{_wrapped(label, LARGE[0])}\nmean D {mean:+.3f}")
        _below(figure, "deviation D (in grid intervals); black: means")
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
        for row, own in enumerate(counts):
            values = deviations[:, row]
            ends = ["", ""] if at_bound is None else at_bound[:, row].tolist()
            head = [label, row + 1, len(values), float(values.mean()), float(values.std()), *ends]
            bins = zip(edges[:-1].tolist(), edges[1:].tolist(), own.tolist(), strict=True)
            lines.writerows([*head, *each] for each in bins)
    return file.getvalue()


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
        figure, panels = _panels(len(names) + 1, width, SMALL)
        for axes, name in zip(panels, names, strict=False):
            _draw_training(axes, name, iterations)
            _draw_held_out(axes, name, evaluations)
            _finish(axes, name, integers=True)
        _draw_deviations(panels[-1], iterations)
        for axes in panels:
            axes.set_xlim(0, 1.03 * max(row["iteration"] for row in rows))
        _below(figure, "iteration")
        legend_above(figure, panels)
    return figure


def check_suffix(path: Path) -> str:
    """What a figure of this name is written as: "png", "svg" or "pdf".

    Raises:
        InputError: for another suffix.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise InputError(f"a figure is written as .png, .svg or .pdf, not {path.name}")
    return suffix


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG of 300 dpi, an SVG or a PDF by the file's suffix, complete or not at all.

    Raises:
        InputError: for another suffix.
        AsyncDiffError: if it cannot be written.
    """
    suffix = check_suffix(path)
    write_atomically(path, lambda file: _write(figure, file, suffix))


def save_chart(figure: Figure, path: Path, numbers: str, suffix: str) -> list[Path]:
    """Save a figure at `path` and as .svg, with its numbers beside it.

    Args:
        suffix: of the file of numbers.

    Returns:
        The files, at `path` or the first free place beside it, as `unused`: a chart of other
        numbers stays where it is.

    Raises:
        AsyncDiffError: if one cannot be written.
    """

    def files(place: Path) -> list[Path]:
        return [*dict.fromkeys([place, place.with_suffix(".svg")]), place.with_suffix(suffix)]

    def is_free(place: Path) -> bool:
        *_, beside = own = files(place)
        return not any(map(os.path.lexists, own)) or holds(beside, numbers)

    *charts, beside = files(unused(path, is_free))
    for chart in charts:
        save_figure(figure, chart)
    write_text(beside, numbers)
    return [*charts, beside]


def figure_svg(figure: Figure) -> str:
    """An `<svg>` element, to embed in HTML."""
    file = io.BytesIO()
    _write(figure, file, "svg")
    text = file.getvalue().decode()
    return text[text.index("<svg") :]  # HTML has no room for a prolog


def _write(figure: Figure, file: Any, suffix: str) -> None:
    with figure_style():
        figure.savefig(file, format=suffix, dpi=DPI, metadata=FORMATS[suffix])


@contextmanager
def figure_style() -> Iterator[None]:
    """Our style within the block, on matplotlib's defaults and not on the user's own."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


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
        alone = name.startswith(LIFTED) and all(r.setting.gamma == 1 for r in results)
        if axis != "steps" and not alone:
            results = [summary.baseline(steps), *results]
        label = f"{name} bound" if name == LIFTED else name
        label = f"{label}, {steps} steps" if several else label
        series.append(Series(label, tuple(sorted(results, key=lambda r: _x(r, axis)))))
    return sorted(series, key=lambda one: one.label == BASELINE)  # the others keep their colours


def _x(result: Result, axis: str) -> float:
    """Where a result is on an axis. Whatever it was drawn with, the baseline has γ = D = 0."""
    if axis == "steps":
        return result.setting.steps
    if result.is_baseline:
        return 0.0
    gamma = result.setting.gamma
    return gamma if axis == "gamma" else gamma * result.mean_deviation


def _look(one: Series, number: int) -> dict[str, Any]:
    """Colour, marker and lines of the n-th series, or of the baseline."""
    look = {"elinewidth": 0.8, "linestyle": "-" if len(one.results) > 1 else ""}
    if one.label == BASELINE:
        return {**look, "color": GREY, "linestyle": "--"}
    turn, place = divmod(number, len(COLOURS))
    return {**look, "color": COLOURS[place], "marker": MARKERS[(place + turn) % len(MARKERS)]}


def _number(axes: Axes, one: Series, points: Sequence[tuple[float, float]], axis: str) -> None:
    """Write beside each point where it is on the axis, unless there is one alone."""
    numbers = {
        p: _x(r, axis) for r, p in zip(one.results, points, strict=True) if not r.is_baseline
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


def _label(metric: str) -> str:
    """A metric with its unit, if it has one."""
    name, unit = LABELS.get(metric, heading(metric)), UNITS.get(metric)
    return f"{name}\n({unit})" if unit else name


def _finish(axes: Axes, metric: str, integers: bool = False) -> None:
    """The metric's name, and few enough numbers for a small chart."""
    axes.set_ylabel(_label(metric))
    steps = [1, 2, 2.5, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator(3 if integers else 4, steps=steps, integer=integers))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=steps))


def _logarithmic(axes: Axes, numbers: Sequence[int]) -> None:
    """x is drawn by its logarithm; these numbers are written, or some of them if there are many."""
    axes.set_xscale("log")
    axes.minorticks_off()
    written = numbers[:: math.ceil(len(numbers) / 5)]
    axes.set_xticks(written, [str(number) for number in written])


def _panels(
    count: int, width: float | None, least: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """A figure with so many charts of about equal size."""
    width = width or (COLUMN if count == 1 else PAGE)
    rows = math.ceil(count / max(1, int(width / least[0])))
    columns = math.ceil(count / rows)
    figure = Figure((width, 0.5 + least[1] * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _below(figure: Figure, *lines: str) -> None:
    """What is on the x axis of all charts."""
    figure.supxlabel("\n".join(_wrapped(line, figure.get_figwidth()) for line in lines), fontsize=8)


def _wrapped(text: str, width: float) -> str:
    """In lines of so many inches."""
    return textwrap.fill(text, max(1, int(width / CHARACTER)))


def legend_above(figure: Figure, panels: Sequence[Axes]) -> None:
    """Above the charts, where it covers nothing; each label once."""
    found: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if not found:
        return
    widths = [CHARACTER * len(label) + 0.4 for label in found]
    width = figure.get_figwidth()
    columns = len(found) if sum(widths) < width else max(1, int(width / max(widths)))
    more = math.ceil(len(found) / columns) - 1
    figure.set_figheight(figure.get_figheight() + 0.16 * more)
    figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=columns)


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


def _ridges(axes: Axes, one: Distribution, colour: str) -> None:
    """A histogram per row, the first at the top, at heights 0, −1, −2 …"""
    rows, limit = len(one.counts), one.edges[-1]
    for row, counts in enumerate(one.counts):
        heights = HEIGHT * counts / counts.max() - row
        axes.stairs(heights, one.edges, baseline=-row, fill=True, color=colour, alpha=0.6)
        axes.axhline(-row, color="#cccccc", linewidth=0.5)
        mean = one.deviations[:, row].mean()
        axes.plot([mean, mean], [-row, HEIGHT - row], color="black", linewidth=1)
    middles = HEIGHT / 2 - np.arange(rows)
    if one.at_bound is not None:
        beside = axes.get_yaxis_transform()
        for y, share in zip(middles, one.at_bound.sum(0), strict=True):
            axes.text(1.02, y, f"{share:.0%}", transform=beside, fontsize=7, va="center")
        axes.text(1.02, 1, "at bound", transform=beside, fontsize=7)
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    names = [f"{row + 1}{' inert' if one.inert[row] else ''}" for row in range(rows)]
    axes.set_yticks(middles, names)
    axes.set(xlim=(-limit, limit), ylim=(0.9 - rows, 1))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2.5, 5, 10]))


def _draw_training(axes: Axes, name: str, iterations: Sequence[Mapping[str, Any]]) -> None:
    """The reward of the iterations' own images, for one that they have."""
    points = [
        (row["iteration"], row["composite"] if name == COMPOSITE else row["rewards"][name]["raw"])
        for row in iterations
        if name in row["rewards"] or (name == COMPOSITE and name in row)
    ]
    if points:
        _draw_running_mean(axes, points, COLOURS[0], "training, running mean")


def _draw_held_out(axes: Axes, name: str, evaluations: Sequence[Mapping[str, Any]]) -> None:
    """The evaluations' means and intervals, and the baseline that they are compared with."""
    found = [(row["iteration"], row["held_out"].get(name)) for row in evaluations]
    compared = [(n, own) for n, own in found if isinstance(own, Mapping)]
    means = [own for _, own in found if isinstance(own, int | float)]
    means += [own["mean"] - own["difference"] for _, own in compared]
    if means:
        axes.axhline(
            means[0], color=GREY, linestyle="--", linewidth=0.8, label="held out, baseline"
        )
    if compared:
        bars = [(d["difference"] - d["low"], d["high"] - d["difference"]) for _, d in compared]
        axes.errorbar(
            [n for n, _ in compared],
            [own["mean"] for _, own in compared],
            np.transpose(bars),
            color=COLOURS[1],
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
    _finish(axes, "mean deviation\n(grid intervals)", integers=True)


def _draw_running_mean(
    axes: Axes, points: Sequence[tuple[float, float]], colour: Any, label: str | None = None
) -> None:
    """Over a 25th of the points around each; over fewer at the ends."""
    x, y = np.transpose(points)
    window = np.ones(2 * (len(y) // 50) + 1)
    mean = np.convolve(y, window, "same") / np.convolve(np.ones_like(y), window, "same")
    marker = "" if len(y) > 1 else "o"
    axes.plot(x, mean, color=colour, linewidth=0.8, marker=marker, label=label)
