"""The chart of a spectrum: how much of a model's latents there is at each scale of detail."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from asyncdiff_cli.engine.figures.explanation_chart import CHART_HEIGHT
from asyncdiff_cli.engine.figures.style import (
    COLUMN,
    GREY,
    SERIES_COLOURS,
    figure_style,
    legend_above,
)
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum


def spectrum_figure(measured: MeasuredSpectrum) -> Figure:
    """The size of a component against its frequency, beside that of the noise, which is 1."""
    shown = [(f, s) for f, s in zip(measured.frequency, measured.std, strict=True) if f and s]
    with figure_style():
        figure = Figure(figsize=(COLUMN, CHART_HEIGHT), layout="constrained")
        axes = figure.subplots()
        axes.plot(*zip(*shown, strict=True), color=SERIES_COLOURS[0], label="clean latents")
        axes.axhline(1, color=GREY, linestyle="--", linewidth=0.8, label="noise")
        axes.set(xscale="log", yscale="log")
        axes.set(xlabel="detail, cycles per image", ylabel="size of a component")
        axes.xaxis.set_major_locator(LogLocator(2))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        legend_above(figure, [axes])
    return figure
