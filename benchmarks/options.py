"""The options that several benchmarks share."""

from __future__ import annotations

from typing import Annotated

import typer

Batch = Annotated[int, typer.Option(min=1, help="Images at once.")]
Size = Annotated[int, typer.Option(min=16, help="Height and width in pixels.")]
CpuTime = Annotated[
    bool, typer.Option("--cpu-time", help="Seconds of the process, on a machine with other work.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
