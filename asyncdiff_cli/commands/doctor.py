"""`asyncdiff doctor`: what is ready on this machine, and what gets the rest."""

from __future__ import annotations

from dataclasses import asdict

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options

STATES = {True: "ready", False: "missing", None: "-"}


def doctor(json: options.Json = False) -> None:
    """Say whether pictures can be drawn here: libraries, devices, memory, models, the hub.

    Beside what is missing is the command that gets it. The exit code is 1 if what `asyncdiff
    sample "a fox"` needs is not there or does not load.
    """
    with render.status("Looking at this machine"):
        from asyncdiff_cli.engine.drawing.readiness import examine

        found = examine()
    broken = [one for one in found if one.needed and not one.ready]
    if json:
        findings = [asdict(one) for one in found]
        render.as_json({"ready": not broken, "findings": findings})
    else:
        rows = [[one.kind, one.name, STATES[one.ready], one.says, one.remedy] for one in found]
        render.table(("", "what", "state", "what there is", "what to do"), rows)
    if broken:
        names = ", ".join(f"{one.kind} {one.name} ({one.says})" for one in broken)
        render.error(f"nothing can be drawn here: {names}")
        raise typer.Exit(1)
