"""`asyncdiff distill`: the best schedule of a trained module."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options
from asyncdiff_cli.commands.calibrate import (
    Candidates,
    DryRun,
    HeldOut,
    Out,
    SearchBatchSize,
    SearchLimit,
    Split,
    Steps,
    Sweeps,
    make,
    show_cost,
)
from asyncdiff_cli.engine.training.search import CANDIDATES, SPLIT, SWEEPS

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice


@options.with_model
def distill(
    model: ModelChoice,
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODULE",
            help="A module's directory or repository, a backbone that ships one, or a run.",
        ),
    ],
    out: Out,
    dataset: options.Dataset = None,
    limit: SearchLimit = None,
    held_out: HeldOut = None,
    prompts: options.PromptsCopy = None,
    data_dir: options.DataDir = None,
    steps: Steps = None,
    guidance: options.Guidance = None,
    size: options.Size = None,
    seed: options.Seed = 0,
    batch_size: SearchBatchSize = None,
    split: Split = SPLIT,
    candidates: Candidates = CANDIDATES,
    sweeps: Sweeps = SWEEPS,
    dry_run: DryRun = False,
    json: options.Json = False,
) -> None:
    """Find the schedule whose pictures are closest to those of a trained module.

    It begins with the mean or median of what the module decides at each step, and says what share
    of its decisions the step alone explains. On validation prompts the module and its schedule are
    compared by how close they come to many steps. Of a run, its recipe says what is not given. A
    command that was killed goes on where it stopped.

    asyncdiff distill runs/mini --out mini.json
    """
    from asyncdiff_cli.engine.training.distill_request import parse_distill_request
    from asyncdiff_cli.engine.training.journal import workplace
    from asyncdiff_cli.engine.training.schedule_request import search_cost

    start = time.perf_counter()
    request, model = parse_distill_request(
        source, model, out=out, dataset=dataset, limit=limit, held_out=held_out, prompts=prompts,
        data_dir=data_dir, steps=steps, guidance=guidance, size=size, seed=seed,
        batch_size=batch_size, split=split, candidates=candidates, sweeps=sweeps,
    )  # fmt: skip
    if dry_run:
        show_cost(search_cost(request, model, request.search.distilling), json)
        return
    with workplace(out) as directory:
        with render.status("Loading the model") as downloading:
            from asyncdiff_cli.engine.training.distilled import open_distillation

            render.quiet_libraries()
            job = open_distillation(request, model, directory, render.warning, downloading)
        make(job, out, start, json)
