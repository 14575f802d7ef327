"""The options that several benchmarks share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError

Batch = Annotated[int, typer.Option(min=1, help="Images at once.")]
Size = Annotated[int, typer.Option(min=16, help="Height and width in pixels.")]
CpuTime = Annotated[
    bool, typer.Option("--cpu-time", help="Seconds of the process, on a machine with other work.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SetMetrics = Annotated[str | None, typer.Option(help='As `asyncdiff eval`; "" for none.')]
Reference = Annotated[Path | None, typer.Option(help="As `asyncdiff eval`.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images at once.")]


def pairs(flag: str, form: str, items: Sequence[str]) -> dict[str, str]:
    """What an option NAME=VALUE, given as often as it was, says of each name.

    Args:
        form: what to call the value.

    Raises:
        InputError: for one that lacks a name or a value.
    """
    found = {}
    for item in items:
        name, _, value = item.partition("=")
        if not (name and value):
            raise InputError(f"{flag} is NAME={form}, not {item!r}")
        found[name] = value
    return found


@contextmanager
def errors_told() -> Iterator[None]:
    """Tell an error of the package in its line, and end with its exit code."""
    try:
        yield
    except AsyncDiffError as error:
        render.error(str(error))
        raise typer.Exit(error.exit_code) from None
