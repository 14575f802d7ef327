"""`asyncdiff import-scores`: the results of a benchmark's scorer, as a column of a store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.stores import show


def import_scores(
    store: options.Exported,
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS",
            callback=callbacks.read_paths,
            help="A file that the scorer wrote, or the directory of export with those of all"
            " policies.",
        ),
    ],
    layout: options.Layout,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", rich_help_panel=options.OUT, help="Of the column. (default: BENCHMARK)"
        ),
    ] = None,
    prompts: options.LocalPrompts = None,
    data_dir: options.DataDir = None,
    json: options.Json = False,
) -> None:
    """Put the results of a benchmark's official scorer beside ours, with paired intervals.

    They become a column of the store, which tables, reports and merge have from then on. One of the
    same name is replaced.

    asyncdiff import-scores evals/flux-geneval geneval --layout geneval
    """
    from asyncdiff_cli.engine.evaluation.export import plan_export
    from asyncdiff_cli.engine.evaluation.import_scores import import_column
    from asyncdiff_cli.engine.evaluation.store import Store

    start = time.perf_counter()
    opened = Store(store)
    column = name or layout
    written = import_column(plan_export(opened, layout, data_dir, prompts), results, column)
    if written.before is not None:
        render.warning(
            f"{column} was there: its {written.before:,} scores give way to these"
            f" {written.scores:,}"
        )
    show(opened, 0, {}, start, json)
