"""`asyncdiff merge`: one store of several shards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.stores import show


def merge(
    stores: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE…", callback=callbacks.read_paths, help="Shards of one evaluation."
        ),
    ],
    out: Annotated[Path, options.directory_out("The new store.")],
    json: options.Json = False,
) -> None:
    """Put the rows of several stores into a new one, and show its table.

    asyncdiff merge evals/shard-0 evals/shard-1 --out evals/all
    """
    from asyncdiff_cli.engine.evaluation.merge import merge as merge_stores

    start = time.perf_counter()
    show(merge_stores(stores, out), 0, {}, start, json)
