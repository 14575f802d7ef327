"""`asyncdiff distill`: the best schedule of a trained module."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options
from asyncdiff_cli.commands.calibrate import (
    DryRun,
    Out,
    SearchOptions,
    SearchPrompts,
    SearchSampling,
    TrialOptions,
    make,
    show_cost,
)


def distill(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODULE",
            help="A module's directory or repository, a backbone that ships one, or a run.",
        ),
    ],
    prompts: SearchPrompts,
    sampling: SearchSampling,
    search: SearchOptions,
    trial: TrialOptions,
    model: options.Model,
    out: Out,
    dry_run: DryRun = False,
    json: options.Json = False,
) -> None:
    """Find the schedule whose pictures are closest to those of a trained module.

    It begins with the mean or median of what the module decides at each step, and says what share
    of its decisions the step alone explains. On validation prompts the module and its schedule are
    compared by how close they come to many steps, and by --rewards. Of a run, its recipe says what
    is not given. A command that was killed goes on where it stopped.

    asyncdiff distill runs/mini --out mini.json
    """
    from asyncdiff_cli.engine.schedules.distill_request import parse_distill_request
    from asyncdiff_cli.engine.schedules.journal import workplace
    from asyncdiff_cli.engine.schedules.request import search_cost

    start = time.perf_counter()
    request, choice = parse_distill_request(
        source,
        model,
        out=out,
        **vars(prompts),
        **vars(sampling),
        **vars(search),
        **vars(trial),
    )
    if dry_run:
        show_cost(search_cost(request, choice, request.search.distilling), json)
        return
    with workplace(out) as directory:
        with render.status("Loading the model") as downloading:
            from asyncdiff_cli.engine.schedules.distill import open_distillation

            render.quiet_libraries()
            job = open_distillation(request, choice, directory, render.warning, downloading)
        make(job, out, start, json)
