"""`asyncdiff train`: train a timestep prediction module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.dry_run import DryRunOptions, show_cost
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.engine.collector import collector_at_rest

if TYPE_CHECKING:
    from asyncdiff_cli.engine.training.recipe import Recipe
    from asyncdiff_cli.engine.training.trainer import Trainer


@in_panel(options.TRAINING)
def train(
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]…", help="Settings of the recipe to change."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=callbacks.complete_recipe,
            help="A recipe of `asyncdiff recipes list`, or a YAML file. (default: the backbone's)",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            callback=callbacks.read_paths,
            help="Go on with this run from its last checkpoint.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="SEED", help="(default: the recipe's)")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            rich_help_panel=options.WHAT,
            callback=callbacks.read_prompts,
            help="A text or JSONL file of prompts, or hf:USER/NAME[:COLUMN] of the hub; or a local"
            " copy of what the recipe downloads (COCO's captions as .json, or a directory).",
        ),
    ] = None,
    data_dir: options.DataDir = None,
    model: options.ModelOfRecipe,
    processes: options.Processes,
    out: Annotated[Path | None, options.directory_out("Of the run. (default: runs/RECIPE)")] = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=callbacks.complete_tracker,
            rich_help_panel=options.OUT,
            help="What to log to: tensorboard, wandb, trackio, or any that accelerate knows.",
        ),
    ] = None,
    dry_run: DryRunOptions,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            rich_help_panel=options.OUT,
            help="Print a JSON object per iteration and evaluation.",
        ),
    ] = False,
) -> None:
    """Train the module that chooses the conditioning times, by GRPO around a frozen backbone.

    The run's directory holds its recipe, metrics, checkpoints, sample grids and, at the end, the
    module: `asyncdiff sample "a fox" --tpm runs/mini/tpm`.

    asyncdiff train --recipe mini iterations=200 evaluation.every=20
    """
    from asyncdiff_cli.engine.locks import hold
    from asyncdiff_cli.engine.training.run_options import (
        check_said_once,
        check_tracker,
        find_run,
        model_overrides,
    )

    check_tracker(tracker)
    check_said_once({**vars(model), "seed": seed, "prompts": prompts}, overrides or ())
    changes = [*model_overrides(model), *(() if seed is None else (f"seed={seed}",))]
    changes += overrides or ()
    chosen, path = find_run(recipe, model.backbone, changes, resume, out, prompts)

    if dry_run.asked:
        processes.check()
        _tell(chosen, path, model.device, dry_run.measure, json)
        return
    processes.launch(model.device)
    with hold(path):
        with render.status("Loading the models") as downloading:
            with collector_at_rest():
                from asyncdiff_cli.engine.training.start import open_trainer

                render.quiet_libraries()
            trainer = open_trainer(
                chosen,
                path,
                resume is not None,
                model.device,
                tracker,
                data_dir,
                prompts,
                render.warning,
                downloading,
            )
        _run(trainer, json)


def _tell(recipe: Recipe, path: Path, device: str | None, measure: bool, json: bool) -> None:
    """Print what a run would draw."""
    from asyncdiff_cli.engine.training.dry_run import training_cost

    with render.status("Looking at the model"):
        found = training_cost(recipe, path, device, measure, render.quiet_libraries)
    if json:
        render.as_json(found)
        return
    names = "run", "iterations", "done", "dataset", "prompts", "group_size", "steps", "seed"
    more = "images", "denoiser_calls", "held_out_prompts"
    show_cost(found, [*names, *more], rewards=render.pairs(found["rewards"]))


def _run(trainer: Trainer, json: bool) -> None:
    """Train to the end, or to where it is stopped, and show what happens."""
    from asyncdiff_cli.engine.training.interrupts import InterruptedRunError

    events, total = trainer.train(), trainer.recipe.iterations
    try:
        with render.training(total, trainer.state.iteration, trainer.is_main, json) as show:
            try:
                for kind, values in events:
                    show(kind, values)
            except KeyboardInterrupt as interrupt:
                events.throw(interrupt)  # it came between two events: the trainer does not know
    except InterruptedRunError as error:
        if trainer.is_main:
            raise
        raise typer.Exit(error.exit_code) from None
    if trainer.is_main and not json:
        render.line(str(trainer.run.tpm))
