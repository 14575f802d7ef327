"""How the figures look, and how they are written.

Importing this imports matplotlib, so only commands that plot do. Nothing outside is changed: the
figures have no pyplot, and their style is in force while they are built and saved. The same data
give the same bytes.
"""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asyncdiff_cli.engine.evaluation.cells import heading
from asyncdiff_cli.engine.figures.formats import FORMATS, check_suffix
from asyncdiff_cli.engine.files import holds, unused, write_atomically, write_text
from asyncdiff_cli.engine.rewards import COMPOSITE, GUARD

COLUMN, PAGE = 3.35, 7.0
"""Inches: the width of a column, and of both."""
SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito, for colour-blind readers, without yellow: too faint on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#666666"
SMALL_CHART, LARGE_CHART = (1.6, 1.4), (2.2, 1.8)
"""Inches that a chart needs, across and down."""
CHARACTER = 0.07
"""Inches of a character, about."""
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
FIXED, LIFTED_BOUND = "fixed", "lifted"
UNITS = {
    "hpsv2": "cosine",
    "hpsv2.1": "cosine",
    "clip": "cosine",
    "mini_clip": "cosine",
    "sharpness": "of 255",
    GUARD: "guard, −σ of 255",
    COMPOSITE: "in σ of the baseline",
}
"""Units of metrics that have one."""
LABELS = {GUARD: "residual noise"}
"""Where a chart has more room than a table."""


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
        *_, beside = written = files(place)
        return not any(map(os.path.lexists, written)) or holds(beside, numbers)

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


def label_of(metric: str) -> str:
    """A metric with its unit, if it has one."""
    name, unit = LABELS.get(metric, heading(metric)), UNITS.get(metric)
    return f"{name}\n({unit})" if unit else name


def finish(axes: Axes, metric: str, integers: bool = False) -> None:
    """The metric's name, and few enough numbers for a small chart."""
    axes.set_ylabel(label_of(metric))
    steps = [1, 2, 2.5, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator(3 if integers else 4, steps=steps, integer=integers))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=steps))


def logarithmic(axes: Axes, numbers: Sequence[int]) -> None:
    """x is drawn by its logarithm; these numbers are written, or some of them if there are many."""
    axes.set_xscale("log")
    axes.minorticks_off()
    written = numbers[:: math.ceil(len(numbers) / 5)]
    axes.set_xticks(written, [str(number) for number in written])


def panel_axes(
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


def legend_below(figure: Figure, *lines: str) -> None:
    """What is on the x axis of all charts."""
    figure.supxlabel("\n".join(wrapped(line, figure.get_figwidth()) for line in lines), fontsize=8)


def wrapped(text: str, width: float) -> str:
    """Text wrapped in lines of so many inches."""
    return textwrap.fill(text, max(1, int(width / CHARACTER)))


def legend_above(figure: Figure, panels: Sequence[Axes]) -> None:
    """Put the legend above the charts, where it covers nothing; each label once."""
    entries: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if not entries:
        return
    widths = [CHARACTER * len(label) + 0.4 for label in entries]
    width = figure.get_figwidth()
    columns = len(entries) if sum(widths) < width else max(1, int(width / max(widths)))
    more = math.ceil(len(entries) / columns) - 1
    figure.set_figheight(figure.get_figheight() + 0.16 * more)
    figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=columns)
