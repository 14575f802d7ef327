"""`asyncdiff eval`: policies side by side on the same prompts and noise."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli.commands import options
from asyncdiff_cli.commands.dry_run import DryRunOptions
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.commands.stores import draw, show, tell
from asyncdiff_cli.engine.policies.table import usages


@in_panel(options.TIME)
def evaluate(
    *,
    prompts: options.PromptOptions,
    policies: Annotated[
        str | None,
        options.policies(
            f"{usages()}; each with @γ if not 1. (default: baseline, the backbone's own"
            " policy, and the modules that it ships)"
        ),
    ] = None,
    gammas: Annotated[
        str | None,
        typer.Option(metavar="γ1,γ2,…", help="Draw each policy at each γ. (default: 1)"),
    ] = None,
    sampling: options.SamplingOptions,
    scoring: options.ScoringOptions,
    model: options.Model,
    processes: options.Processes,
    kept: options.KeptImages,
    out: Annotated[
        Path | None,
        options.directory_out("The store. What is there is kept. (default: in evals/)"),
    ] = None,
    dry_run: DryRunOptions,
    json: options.Json = False,
) -> None:
    """Compare policies on the same prompts and noise: the paper's Tables 1 and 2.

    Every image is a row of DIR/parts/*.parquet. The command can be stopped and given again, also
    with more policies or prompts: what is there is not drawn again. The table is printed, and
    written as DIR/table.md, .csv and .tex.

    asyncdiff eval --policies baseline,spectral,fixed:0.5,detail-daemon --limit 64
    """
    from asyncdiff_cli.engine.evaluation.comparison import parse_comparison

    start = time.perf_counter()
    wanted = parse_comparison(
        model, policies, gammas,
        **vars(prompts), **vars(sampling), **vars(scoring), **vars(kept),
    )  # fmt: skip
    out = out or wanted.default_out
    if dry_run.asked:
        processes.check()
        tell(wanted, out, dry_run.measure, json)
        return
    processes.launch(model.device)
    drawn = draw(wanted, out)
    if drawn is not None:
        show(*drawn, start, json)
