"""One quantity in several values, as charts: the paper's Figure 2."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli.engine.drawing.provenance import save_png
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import summarize
from asyncdiff_cli.engine.evaluation.sweep_axis import Axis
from asyncdiff_cli.engine.figures.gallery import store_panel
from asyncdiff_cli.engine.figures.scaling import noise_figure, scaling_figure
from asyncdiff_cli.engine.figures.style import save_figure

SUFFIXES = (".png", ".svg")


def write_sweep(store: Store, axis: Axis) -> list[Path]:
    """The charts of a store and, where images were kept, a panel of them; the files' paths.

    Gains over residual noise are charted where a reward beside it was measured.

    Raises:
        AsyncDiffError: if one cannot be written.
    """
    summary = summarize(store)
    figures = {"sweep": scaling_figure(summary, axis.name)}
    if len(summary.rewards) > 1:  # than the guard, which is always among them
        figures["noise"] = noise_figure(summary, axis.name)
    written = []
    for name, figure in figures.items():
        for suffix in SUFFIXES:
            written.append(store.path / f"{name}{suffix}")
            save_figure(figure, written[-1])
    if any(store.read(["image"])["image"].to_pylist()):
        panel = store_panel(store)
        written.append(store.path / "panel.png")
        save_png(panel.image, written[-1], panel.provenance, panel.chunks)
    return written
