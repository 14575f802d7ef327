"""`asyncdiff eval`: policies side by side on the same prompts and noise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice
    from asyncdiff_cli.engine.evaluation.comparison import Comparison
    from asyncdiff_cli.engine.evaluation.store import Store


@options.with_model
def evaluate(
    model: ModelChoice,
    context: typer.Context,
    policies: options.Policies = None,
    gammas: Annotated[
        str | None,
        typer.Option(metavar="γ1,γ2,…", help="Draw each policy at each γ. (default: 1)"),
    ] = None,
    dataset: options.Dataset = None,
    limit: options.Limit = None,
    seed: options.Seed = 42,
    steps: options.StepCounts = None,
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
    images: options.KeptImages = 16,
    batch_size: options.BatchSize = None,
    shard: options.Shard = "0/1",
    processes: options.Processes = 1,
    out: options.StoreDirectory = None,
    json: options.Json = False,
) -> None:
    """Compare policies on the same prompts and noise: the paper's Tables 1 and 2.

    Every image is a row of DIR/parts/*.parquet. The command can be stopped and given again, also
    with more policies or prompts: what is there is not drawn again. The table is printed, and
    written as DIR/table.md, .csv and .tex.

    asyncdiff eval --policies baseline,learned,fixed:0.5,detail-daemon --limit 64
    """
    from asyncdiff_cli.engine.evaluation.comparison import parse_comparison
    from asyncdiff_cli.engine.processes import launch, must_launch

    start = time.perf_counter()
    wanted = parse_comparison(
        model, policies, gammas, steps, rewards, reward_path, shard, set_metrics,
        dataset=dataset, limit=limit, seed=seed, guidance=guidance, size=size,
        reward_dtype=reward_dtype, offload_rewards=offload_rewards, reference=reference,
        prompts=prompts, data_dir=data_dir, kept_images=images, batch_size=batch_size,
    )  # fmt: skip
    out = out or wanted.default_out
    if must_launch(processes):
        raise typer.Exit(launch(processes, context.obj.arguments, model.device))
    drawn = draw(wanted, out)
    if drawn is not None:
        show(*drawn, start, json)


def draw(wanted: Comparison, out: Path) -> tuple[Store, int, Mapping[str, Any]] | None:
    """Evaluate into `out`; the store, how many images were drawn, and the options in force, in one
    process of several."""
    from asyncdiff_cli.engine.evaluation.store import reserved

    with reserved(out, wanted.shard):
        return _draw(wanted, out)


def _draw(wanted: Comparison, out: Path) -> tuple[Store, int, Mapping[str, Any]] | None:
    with render.status("Loading the models") as downloading:
        from asyncdiff_cli.engine.evaluation.start import open_evaluation

        render.quiet_libraries()
        evaluation = open_evaluation(wanted, out, downloading, render.warning)
    cells = evaluation.pending()
    with render.images(len(cells), evaluation.accelerator.is_main_process) as advance:
        for count in evaluation.run(cells):
            advance(count)
    for text in evaluation.batch_size.warnings:
        render.warning(text)
    drawn = evaluation.finish(len(cells))
    return None if drawn is None else (evaluation.store, drawn, evaluation.options)


def show(
    store: Store,
    drawn: int,
    options: Mapping[str, Any],
    start: float,
    json: bool,
    files: list[Path] | None = None,
) -> None:
    """Print a store's table, and write it in the other formats."""
    from asyncdiff_cli.engine.evaluation.summary import summarize
    from asyncdiff_cli.engine.evaluation.tables import to_json, to_rich, write_tables

    summary = summarize(store)
    for note in summary.notes:
        render.warning(note)
    written = [*write_tables(summary, store.path), *(files or ())]
    if json:
        report: dict[str, Any] = {
            "store": str(store.path),
            "files": [str(file) for file in written],
            "drawn": drawn,
            "seconds": round(time.perf_counter() - start, 3),
            "options": options,
            **to_json(summary),
        }
        render.as_json(report)
        return
    render.tables(to_rich(summary))
    if summary.partial:
        render.warning(f"{summary.partial} prompts are not drawn by all policies yet: left out")
    for file in written:
        render.line(str(file))
