"""`asyncdiff merge`: one store of several shards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli.commands import options
from asyncdiff_cli.commands.evaluate import show


def merge(
    stores: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE…", callback=options.read_paths, help="Shards of one evaluation."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", callback=options.try_directory, help="The new store.")
    ],
    json: options.Json = False,
) -> None:
    """Put the rows of several stores into a new one, and show its table.

    asyncdiff merge evals/shard-0 evals/shard-1 --out evals/all
    """
    from asyncdiff_cli.engine.evaluation.store import merge as merge_stores

    start = time.perf_counter()
    show(merge_stores(stores, out), 0, {}, start, json)
