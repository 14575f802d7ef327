"""`asyncdiff sweep`: what γ, the deviation, the bound or the number of steps does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options
from asyncdiff_cli.commands.evaluate import draw, show

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice


@options.with_model
def sweep(
    model: ModelChoice,
    context: typer.Context,
    gammas: Annotated[
        str | None, typer.Option(metavar="γ1,γ2,…", help="What deviations are multiplied by.")
    ] = None,
    deviations: Annotated[
        str | None, typer.Option(metavar="D1,D2,…", help="Fixed deviations, in [-1, 1].")
    ] = None,
    bounds: Annotated[
        str | None,
        typer.Option(metavar="B1,B2", help="0.5 for the module, 1 for the lifted one."),
    ] = None,
    steps: options.StepCounts = None,
    policies: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY,…",
            callback=options.read_policies,
            help="What γ or the steps are swept of, as in eval. (default: learned, and lifted"
            " beside it where there is one)",
        ),
    ] = None,
    dataset: options.Dataset = None,
    limit: options.Limit = None,
    seed: options.Seed = 42,
    guidance: options.Guidance = None,
    size: options.Size = None,
    rewards: options.Rewards = None,
    reward_path: options.RewardPath = None,
    reward_dtype: options.RewardDtype = None,
    offload_rewards: options.OffloadRewards = False,
    set_metrics: options.SetMetrics = None,
    reference: options.Reference = None,
    prompts: options.PromptsCopy = None,
    data_dir: options.DataDir = None,
    images: options.KeptImages = 6,
    batch_size: options.BatchSize = None,
    shard: options.Shard = "0/1",
    processes: options.Processes = 1,
    out: options.StoreDirectory = None,
    json: options.Json = False,
) -> None:
    """Chart the metrics against γ, the deviation or the steps: the paper's Figures 2 and 5.

    Draws into a store as eval does, and goes on as eval does. DIR/sweep.png and .svg are the
    metrics, DIR/noise.png and .svg the other metrics against residual noise, DIR/panel.png the
    images.

    asyncdiff sweep --gammas 0.5,1,2 --limit 64
    """
    from asyncdiff_cli.engine.evaluation.comparison import parse_comparison, provisional_entry
    from asyncdiff_cli.engine.fields import parse_numbers
    from asyncdiff_cli.engine.figures.sweep import sweep_axis, write_sweep
    from asyncdiff_cli.engine.processes import launch, must_launch

    start = time.perf_counter()
    axis = sweep_axis(
        policies,
        parse_numbers("--gammas", gammas, float),
        parse_numbers("--deviations", deviations, float),
        parse_numbers("--bounds", bounds, float),
        parse_numbers("--steps", steps, int),
        provisional_entry(model.name),
    )
    wanted = parse_comparison(
        model, axis.policies, gammas, steps, rewards, reward_path, shard, set_metrics,
        dataset=dataset, limit=limit, seed=seed, guidance=guidance, size=size,
        reward_dtype=reward_dtype, offload_rewards=offload_rewards, reference=reference,
        prompts=prompts, data_dir=data_dir, kept_images=images, batch_size=batch_size,
    )  # fmt: skip
    out = out or wanted.default_out.with_name(f"{wanted.default_out.name}-{axis.name}")
    if must_launch(processes):
        raise typer.Exit(launch(processes, context.obj.arguments, model.device))
    drawn = draw(wanted, out)
    if drawn is None:
        return
    with render.status("Drawing the charts"):
        files = write_sweep(drawn[0], axis)
    show(*drawn, start, json, files)
