"""The chart of a schedule: its deviations, and the times that it tells."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asyncdiff_cli.engine.figures.explanation_chart import CHART_HEIGHT, finish_times
from asyncdiff_cli.engine.figures.style import COLUMN, GREY, PAGE, SERIES_COLOURS, figure_style
from asyncdiff_cli.engine.policies.schedule_file import Schedule


def schedule_figure(schedule: Schedule) -> Figure:
    """D of each decision; and t* against t, where the schedule says which times those are."""
    times = (schedule.sigmas or ())[:-1], schedule.cond_sigmas or ()
    known = len(times[0]) == len(times[1]) > 0
    with figure_style():
        width = PAGE if known else COLUMN
        figure = Figure(figsize=(width, CHART_HEIGHT), layout="constrained")
        axes = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
        steps = range(1, len(schedule.deviations) + 1)
        axes[0].bar(steps, schedule.deviations, width=0.7, color=SERIES_COLOURS[0])
        axes[0].axhline(0, color=GREY, linewidth=0.8)
        axes[0].set(xlabel="step k", ylabel="deviation D (in grid intervals)")
        axes[0].xaxis.set_major_locator(MaxNLocator(8, integer=True))
        if known:
            axes[1].plot(*times, color=SERIES_COLOURS[0], marker="o")
            finish_times(axes[1], times[0])
    return figure
