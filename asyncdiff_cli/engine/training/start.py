"""The run of a recipe: what is loaded, and where it is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import Accelerator

from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.memory.footprint import Company
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.source import fetch
from asyncdiff_cli.engine.devices import TORCH_DTYPES
from asyncdiff_cli.engine.downloads import OnProgress
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.opening import open_canvas
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.files import REFUSED, write_text
from asyncdiff_cli.engine.processes import in_turn, join
from asyncdiff_cli.engine.prompts.load import load_prompts
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.rewards import check_prompts
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.text import one_line
from asyncdiff_cli.engine.training.checkpoint import Checkpoint, identity
from asyncdiff_cli.engine.training.held_out import HeldOut
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import to_yaml
from asyncdiff_cli.engine.training.run import RunDirectory, by_iteration
from asyncdiff_cli.engine.training.run_options import check_tracker, is_copy
from asyncdiff_cli.engine.training.trainer import Trainer


def open_trainer(
    recipe: Recipe,
    path: Path,
    resume: bool = False,
    device: str | None = None,
    tracker: str | None = None,
    data_dir: Path | None = None,
    prompts: Path | None = None,
    on_warning: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress | None = None,
) -> Trainer:
    """Load all that a run needs, refuse what cannot work, and start or go on.

    Args:
        path: the run's directory.
        tracker: one of `TRACKERS`.
        data_dir: where prompts are downloaded to.
        prompts: a local copy of the recipe's prompts.
        on_warning: told if the model will not fit, before it is loaded, and about each checkpoint
            that is torn or foreign.
        on_progress: told about the download of prompts.

    Raises:
        InputError: for what can be refused before a model is loaded.
        AsyncDiffError: for what cannot be loaded, or a run without a usable checkpoint.
    """
    check_tracker(tracker)
    if not resume:
        RunDirectory.check_new(path)
    accelerator = join(device, tracker, path)
    copy = prompts if prompts is not None and is_copy(prompts) else None
    moved = resume and prompts is not None and copy is None
    source = str(prompts) if moved else recipe.prompts
    with in_turn(accelerator):
        texts, held_out = (
            load_prompts(source, split, data_dir, copy, on_progress)
            for split in ("train", "validation")
        )
        outline = _outline(recipe, accelerator, [*texts.texts, *held_out.texts])
        run = RunDirectory(path, identity(resolved(recipe, outline), outline, texts, held_out))
        checkpoint = _last(run, on_warning, accelerator) if resume else None
        fetch(outline.source)
        scorers = _scorers(recipe, accelerator, path)
    canvas = open_canvas(
        outline,
        accelerator,
        recipe.guidance_scale,
        recipe.size,
        recipe.rollout_batch_size,
        _wanted_prompts(recipe, path, texts, held_out),
        path / ".text",
        [scorers],
        _company(recipe, scorers),
        on_warning=on_warning,
    )
    recipe = resolved(recipe, canvas.backbone)
    if accelerator.is_main_process and not resume:
        run.start(to_yaml(recipe))
    canvas = dataclasses.replace(canvas, guidance_scale=recipe.guidance_scale, size=recipe.size)
    validation = _held_out(recipe, canvas, held_out, scorers)
    trainer = Trainer(recipe, canvas, scorers, texts, validation, run, accelerator)
    if resume:
        _restore(trainer, checkpoint)
    if tracker is not None:
        _track(accelerator, tracker, recipe)
    accelerator.wait_for_everyone()
    return trainer


def _track(accelerator: Accelerator, tracker: str, recipe: Recipe) -> None:
    """Begin to log a run.

    Raises:
        AsyncDiffError: for a tracker that does not start, as one that wants to be logged in to.
    """
    settings = {k: str(v) for k, v in recipe.model_dump(mode="json").items()}
    try:
        accelerator.init_trackers("asyncdiff", config=settings)
    except Exception as error:  # each has its own classes
        raise AsyncDiffError(f"{tracker} does not start: {one_line(error)}") from None
    if not accelerator.trackers:
        raise AsyncDiffError(f"{tracker} is not whole: install it again with pip install {tracker}")


def _outline(recipe: Recipe, accelerator: Accelerator, prompts: Sequence[str]) -> Outline:
    """The backbone that is trained around; it draws the recipe's size, and rewards read prompts."""
    check_prompts(recipe.rewards, prompts)
    outline = Outline.of(recipe.model(), accelerator.device)
    outline.check_side(recipe.size)
    return outline


def _scorers(recipe: Recipe, accelerator: Accelerator, path: Path) -> RewardGroup:
    return RewardGroup(
        recipe.rewards,
        recipe.reward_paths,
        accelerator.device,
        recipe.reward_dtype,
        recipe.offload_rewards,
        keep=path / REFUSED,
    )


def _company(recipe: Recipe, scorers: RewardGroup) -> Company:
    return Company(
        tuple(scorers.sizes.values()),
        recipe.offload_rewards,
        "offload_rewards=true",
        "rollout_batch_size=",
    )


def resolved(recipe: Recipe, backbone: Backbone | Outline) -> Recipe:
    """The recipe with what it leaves to the backbone filled in, so that a run stays what it is."""
    own = {
        "dtype": next(k for k, v in TORCH_DTYPES.items() if v is backbone.dtype),
        "scheduler": backbone.scheduler,
        "revision": backbone.revision,
        "guidance_scale": backbone.entry.guidance_scale,
        "size": backbone.size,
    }
    return recipe.model_copy(
        update={name: value for name, value in own.items() if getattr(recipe, name) is None}
    )


def _wanted_prompts(
    recipe: Recipe, path: Path, prompts: PromptSet, held_out: PromptSet
) -> list[str]:
    """The prompts of the iterations from the oldest checkpoint on, and the held-out ones."""
    first = min(by_iteration(path / "checkpoints", ".safetensors"), default=0)
    each = recipe.prompts_per_iteration
    own = [prompts.at(n, recipe.seed) for n in range(first * each, recipe.iterations * each)]
    return [*own, *_held_out_prompts(recipe, held_out)]


def _held_out_prompts(recipe: Recipe, prompts: PromptSet) -> tuple[str, ...]:
    own = recipe.evaluation
    count = own.prompts if own.every else recipe.samples.count if recipe.samples.every else 0
    return prompts.draw(min(count, len(prompts)), own.seed) if count else ()


def _held_out(
    recipe: Recipe, canvas: Canvas, prompts: PromptSet, scorers: RewardGroup
) -> HeldOut | None:
    texts = _held_out_prompts(recipe, prompts)
    if not texts:
        return None
    seed = recipe.evaluation.seed
    return HeldOut.make(canvas, texts, seed, recipe.num_inference_steps, scorers)


def _fit(trainer: Trainer, checkpoint: Checkpoint) -> None:
    try:
        trainer.restore(checkpoint)
    except Exception as error:  # for weights of another shape torch raises any class
        raise AsyncDiffError(
            f"the checkpoint of iteration {checkpoint.iteration} in {trainer.run.path} does not"
            f" fit its recipe ({one_line(error)})"
        ) from None


def _last(
    run: RunDirectory, on_refused: Callable[[str], None], accelerator: Accelerator
) -> Checkpoint | None:
    """The last good checkpoint; None if there was none yet.

    Raises:
        AsyncDiffError: if those that are there are torn or of another run.
    """
    checkpoint = run.last(on_refused if accelerator.is_main_process else lambda _: None)
    if checkpoint is None and run.files():
        raise AsyncDiffError(f"{run.path} has no checkpoint to go on from")
    return checkpoint


def _restore(trainer: Trainer, checkpoint: Checkpoint | None) -> None:
    """Go on from a checkpoint, or from the start if there was none yet."""
    run = trainer.run
    if checkpoint is not None:
        _fit(trainer, checkpoint)
    trainer.accelerator.wait_for_everyone()
    if trainer.is_main:
        run.forget_after(-1 if checkpoint is None else trainer.state.iteration)
        write_text(run.path / "recipe.yaml", to_yaml(trainer.recipe))
