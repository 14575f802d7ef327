"""What the commands share that draw into stores of evaluations and show them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncdiff_cli import render
from asyncdiff_cli.commands.dry_run import show_cost
from asyncdiff_cli.engine.collector import collector_at_rest

if TYPE_CHECKING:
    from asyncdiff_cli.engine.evaluation.comparison import Comparison
    from asyncdiff_cli.engine.evaluation.store import Store


def draw(wanted: Comparison, out: Path) -> tuple[Store, int, Mapping[str, Any]] | None:
    """Evaluate into `out`; the store, how many images were drawn, and the options in force, in one
    process of several."""
    from asyncdiff_cli.engine.evaluation.store import reserved

    with reserved(out, wanted.shard):
        return _draw(wanted.going_on(out), out)


def _draw(wanted: Comparison, out: Path) -> tuple[Store, int, Mapping[str, Any]] | None:
    wanted.check(out)
    with render.status("Loading the models") as downloading:
        with collector_at_rest():
            from asyncdiff_cli.engine.evaluation.start import open_evaluation

            render.quiet_libraries()
        evaluation = open_evaluation(wanted, out, downloading, render.warning)
    cells = evaluation.pending()
    with render.images(len(cells), evaluation.accelerator.is_main_process) as advance:
        for count in evaluation.run(cells):
            advance(count)
    for text in evaluation.batch_size.warnings:
        render.warning(text)
    drawn = evaluation.finish(len(cells))
    return None if drawn is None else (evaluation.store, drawn, evaluation.options)


def tell(wanted: Comparison, out: Path, measure: bool, json: bool) -> None:
    """Print what would be drawn into `out`, and what is there."""
    from asyncdiff_cli.engine.evaluation.dry_run import evaluation_cost

    with render.status("Looking at the model"):
        wanted = wanted.going_on(out)
        found = evaluation_cost(wanted, out, measure, render.quiet_libraries)
    if json:
        render.as_json(found)
        return
    rows = [
        [row["policy"], *(f"{row[name]:,}" for name in ("gamma", "steps", "images", "stored"))]
        for row in found["policies"]
    ]
    render.table(("policy", "γ", "steps", "images", "in the store"), rows)
    names = "store", "dataset", "prompts", "num_images", "seed", "denoiser_calls"
    measured = ", ".join([*found["rewards"], *found["set_metrics"]])
    show_cost(found, names, rewards=measured)


def show(
    store: Store,
    drawn: int,
    options: Mapping[str, Any],
    start: float,
    json: bool,
    files: list[Path] | None = None,
) -> None:
    """Print a store's table, and write it in the other formats."""
    from asyncdiff_cli.engine.evaluation.summary import summarize
    from asyncdiff_cli.engine.evaluation.table_data import to_json
    from asyncdiff_cli.engine.evaluation.table_files import write_tables
    from asyncdiff_cli.engine.evaluation.table_terminal import to_rich

    summary = summarize(store)
    for note in summary.notes:
        render.warning(note)
    written = [*write_tables(summary, store.path), *(files or ())]
    if json:
        report: dict[str, Any] = {
            "store": str(store.path),
            "files": [str(file) for file in written],
            "drawn": drawn,
            "seconds": round(time.perf_counter() - start, 3),
            "options": options,
            **to_json(summary),
        }
        render.as_json(report)
        return
    render.tables(to_rich(summary))
    if summary.partial:
        render.warning(f"{summary.partial} prompts are not drawn by all policies yet: left out")
    for file in written:
        render.line(str(file))
