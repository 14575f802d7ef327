"""The options that several benchmarks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.engine.errors import AsyncDiffError

Batch = Annotated[int, typer.Option(min=1, help="Images at once.")]
Size = Annotated[int, typer.Option(min=16, help="Height and width in pixels.")]
CpuTime = Annotated[
    bool, typer.Option("--cpu-time", help="Seconds of the process, on a machine with other work.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SetMetrics = Annotated[str | None, typer.Option(help='As `asyncdiff eval`; "" for none.')]
Reference = Annotated[Path | None, typer.Option(help="As `asyncdiff eval`.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images at once.")]


@contextmanager
def errors_told() -> Iterator[None]:
    """Tell an error of the package in its line, and end with its exit code."""
    try:
        yield
    except AsyncDiffError as error:
        render.error(str(error))
        raise typer.Exit(error.exit_code) from None
