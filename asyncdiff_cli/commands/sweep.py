"""`asyncdiff sweep`: what γ, the deviation, the bound or the number of steps does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options
from asyncdiff_cli.commands.dry_run import DryRunOptions
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.commands.stores import draw, show, tell


@in_panel(options.TIME)
@dataclass(frozen=True)
class SweptOptions:
    """What is swept: one of these, or the steps."""

    gammas: Annotated[
        str | None, typer.Option(metavar="γ1,γ2,…", help="What deviations are multiplied by.")
    ] = None
    deviations: Annotated[
        str | None, typer.Option(metavar="D1,D2,…", help="Fixed deviations, in [-1, 1].")
    ] = None
    bounds: Annotated[
        str | None,
        typer.Option(metavar="B1,B2", help="0.5 for the module, 1 for the lifted one."),
    ] = None
    policies: Annotated[
        str | None,
        options.policies(
            "What γ or the steps are swept of, as in eval. (default: the backbone's modules, or"
            " its own policy)"
        ),
    ] = None


def sweep(
    *,
    prompts: options.PromptOptions,
    swept: SweptOptions,
    sampling: options.SamplingOptions,
    scoring: options.ScoringOptions,
    model: options.Model,
    processes: options.Processes,
    kept: options.SweptImages,
    out: Annotated[
        Path | None,
        options.directory_out("The store. What is there is kept. (default: in evals/)"),
    ] = None,
    dry_run: DryRunOptions,
    json: options.Json = False,
) -> None:
    """Chart the metrics against γ, the deviation or the steps: the paper's Figures 2 and 5.

    Draws into a store as eval does, and goes on as eval does. DIR/sweep.png and .svg are the
    metrics, DIR/noise.png and .svg the other metrics against residual noise, DIR/panel.png the
    images.

    asyncdiff sweep --gammas 0.5,1,2 --limit 64
    """
    from asyncdiff_cli.engine.backbones.registry import provisional_entry
    from asyncdiff_cli.engine.evaluation.comparison import parse_comparison
    from asyncdiff_cli.engine.evaluation.sweep_axis import sweep_axis
    from asyncdiff_cli.engine.fields import parse_numbers

    start = time.perf_counter()
    axis = sweep_axis(
        swept.policies,
        parse_numbers("--gammas", swept.gammas, float),
        parse_numbers("--deviations", swept.deviations, float),
        parse_numbers("--bounds", swept.bounds, float),
        parse_numbers("--steps", sampling.steps, int),
        provisional_entry(model.name),
    )
    wanted = parse_comparison(
        model, axis.policies, swept.gammas,
        **vars(prompts), **vars(sampling), **vars(scoring), **vars(kept),
    )  # fmt: skip
    out = out or wanted.default_out.with_name(f"{wanted.default_out.name}-{axis.name}")
    if dry_run.asked:
        processes.check()
        tell(wanted, out, dry_run.measure, json)
        return
    processes.launch(model.device)
    drawn = draw(wanted, out)
    if drawn is None:
        return
    with render.status("Drawing the charts"):
        from asyncdiff_cli.engine.figures.sweep import write_sweep

        files = write_sweep(drawn[0], axis)
    show(*drawn, start, json, files)
