"""`asyncdiff report`: everything about an evaluation or a run in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options


def report(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|STORE",
            callback=callbacks.read_paths,
            help="A training run, or a store of eval or sweep.",
        ),
    ],
    out: Annotated[Path | None, options.file_out("(default: report.html beside the data)")] = None,
    json: options.Json = False,
) -> None:
    """Write tables, charts, images and settings as one HTML file that needs nothing else.

    asyncdiff report evals/mini-mini
    """
    with render.status("Writing the report"):
        from asyncdiff_cli.engine.figures.report import NAME, write_report
        from asyncdiff_cli.engine.files import kept_apart

        out = out or path / NAME
        written = write_report(path, out)
    if warning := kept_apart(out, written):
        render.warning(warning)
    if json:
        render.as_json({"path": str(written), "bytes": written.stat().st_size})
    else:
        render.line(str(written))
