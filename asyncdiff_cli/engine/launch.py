"""From a recipe to a run: what is loaded, and where it is written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from asyncdiff_cli.engine.backbones import DTYPES, Backbone
from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.downloads import Progress
from asyncdiff_cli.engine.encoding import encode_first
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import REFUSED, expanded, write_text
from asyncdiff_cli.engine.fitting import advise, squares
from asyncdiff_cli.engine.heldout import HeldOut
from asyncdiff_cli.engine.lora import LoRA
from asyncdiff_cli.engine.memory import Company
from asyncdiff_cli.engine.named import check_model
from asyncdiff_cli.engine.outline import Outline
from asyncdiff_cli.engine.processes import join
from asyncdiff_cli.engine.prompts import SOURCES, PromptSet, load_prompts
from asyncdiff_cli.engine.recipes import Recipe, load_recipe, to_yaml
from asyncdiff_cli.engine.registry import REGISTRY
from asyncdiff_cli.engine.requests import DEFAULT_BACKBONE, NEUTRAL, ModelChoice
from asyncdiff_cli.engine.rewards import check_prompts
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.rollout import Canvas
from asyncdiff_cli.engine.runs import Checkpoint, RunDirectory, by_iteration
from asyncdiff_cli.engine.sources import fetch
from asyncdiff_cli.engine.text import one_line
from asyncdiff_cli.engine.training import FREE, Trainer, identity

TRACKERS = ("tensorboard", "wandb")
RECIPES = {"mini": "mini", "flux": "flux-coco", "sd35": "sd35-coco"}
"""What a backbone is trained with unless asked otherwise."""


def find_run(
    recipe: str | None,
    backbone: str | None,
    overrides: Sequence[str],
    resume: Path | None,
    out: Path | None,
    prompts: Path | None,
) -> tuple[Recipe, Path]:
    """The recipe of a new run or of one that goes on, and its directory.

    Args:
        recipe: a name or file; default the backbone's.
        backbone: in place of the recipe's; default mini.
        overrides: `key=value`.
        resume: the directory of a run that goes on.
        out: that of a new one; default runs/NAME.
        prompts: a text or JSONL file of prompts in place of the recipe's.

    Raises:
        InputError: for options that exclude each other, for a directory that holds no run or, for
            a new one, is not empty, and for overrides that a resumed run cannot take.
    """
    if prompts is not None and not is_copy(prompts) and resume is None:
        overrides = [*overrides, f"prompts={prompts.absolute()}"]
    if backbone is not None:
        overrides = [*overrides, f"backbone={backbone}"]
    if resume is None:
        name = recipe or RECIPES.get(backbone or DEFAULT_BACKBONE)
        if name is None:
            raise InputError(
                f"there is no recipe for {backbone}: give --recipe with one of a model like it,"
                f" such as {RECIPES['sd35']} or {RECIPES['flux']}"
            )
        path = out or Path("runs") / Path(name).stem
        RunDirectory.check_new(path)
        found = _absolute(load_recipe(name, overrides))
        found.model().check()
        return found, path
    if recipe is not None or out is not None:
        raise InputError("--resume goes on with a run's own recipe and directory: give neither")
    file = resume / "recipe.yaml"
    if not file.is_file():
        raise InputError(f"{resume} is not a run: it has no recipe.yaml")
    before, after = load_recipe(str(file)), load_recipe(str(file), overrides)
    kept = {name: getattr(before, name) for name in Recipe.model_fields if name not in FREE}
    changed = [
        name
        for name, value in kept.items()
        if getattr(after, name) not in (value, value or NEUTRAL.get(name))
    ]
    if changed:
        raise InputError(
            f"a run that goes on keeps its {', '.join(changed)}; start another with --recipe {file}"
            f" (what may change: {', '.join(FREE)})"
        )
    found = after.model_copy(update=kept)
    given = ModelChoice(backbone, lora=found.lora if changes_of(overrides, "lora") else ())
    check_model(resume, found.model(), given)
    if prompts is None and found.prompts not in SOURCES and not Path(found.prompts).is_file():
        raise InputError(
            f"{resume} is of the prompts in {found.prompts}, and there is no such file: give"
            " --prompts FILE with its place"
        )
    return found, resume


def changes_of(overrides: Sequence[str], key: str) -> list[str]:
    """The overrides of a key."""
    return [override for override in overrides if override.partition("=")[0].strip() == key]


def _absolute(recipe: Recipe) -> Recipe:
    """The recipe with the places of files as they are from any directory: a run may go on."""

    def place(text: str) -> str:
        path = Path(text).expanduser()
        return str(path.absolute()) if path.exists() else text

    changes: dict[str, Any] = {
        name: place(value)
        for name in ("prompts", "backbone", "model_path")
        if (value := getattr(recipe, name)) and value not in (*SOURCES, *REGISTRY)
    }
    changes["lora"] = tuple(LoRA.parse(text).absolute() for text in recipe.lora)
    changes["reward_paths"] = {name: place(file) for name, file in recipe.reward_paths.items()}
    return recipe.model_copy(update=changes)


def model_overrides(model: ModelChoice) -> list[str]:
    """What a user has said of the model as `KEY=VALUE` of a recipe."""
    given = {name: value for name in model.options() if (value := getattr(model, name))}
    if model.model_path is not None:
        given["model_path"] = str(expanded(model.model_path).absolute())
    if model.lora:  # the run may go on from another directory
        given["lora"] = [LoRA.parse(text).absolute() for text in model.lora]
    given |= {name: NEUTRAL[name] for name in model.off}
    return [
        f"{name}={json.dumps(value)}"
        for name, value in given.items()
        if name not in ("backbone", "device")  # one finds the recipe, and one is this machine's
    ]


def check_said_once(options: Mapping[str, object], overrides: Sequence[str]) -> None:
    """Refuse a setting that is given both as an option and as `KEY=VALUE`.

    Args:
        options: what may be, by the recipe's key; None, False and () are not given.

    Raises:
        InputError: for one that is, since neither is stronger.
    """
    # a seed of 0, which equals False, is given
    given = {
        name for name, value in options.items() if value not in (None, ()) and value is not False
    }
    for override in overrides:
        if (name := override.partition("=")[0].strip()) in given:
            raise InputError(f"{name} is given twice, as an option and as {override!r}: give one")


def is_copy(path: Path) -> bool:
    """Whether --prompts is a local copy of the recipe's own set, and not a file of prompts."""
    return path.is_dir() or path.suffix == ".json"


def open_trainer(
    recipe: Recipe,
    path: Path,
    resume: bool = False,
    device: str | None = None,
    tracker: str | None = None,
    data_dir: Path | None = None,
    prompts: Path | None = None,
    on_warning: Callable[[str], None] = lambda _: None,
    on_progress: Progress | None = None,
) -> Trainer:
    """Load all that a run needs, refuse what cannot work, and start or go on.

    Args:
        path: the run's directory.
        tracker: "tensorboard" or "wandb".
        data_dir: where prompts are downloaded to.
        prompts: a local copy of the recipe's prompts.
        on_warning: told if the model will not fit, before it is loaded, and about each checkpoint
            that is torn or foreign.
        on_progress: told about the download of prompts.

    Raises:
        InputError: for what can be refused before a model is loaded.
        AsyncDiffError: for what cannot be loaded, or a run without a usable checkpoint.
    """
    if tracker is not None:
        check_choice("tracker", tracker, TRACKERS)
        if find_spec(tracker) is None:
            raise InputError(f"{tracker} is not installed: pip install {tracker}")
    if not resume:
        RunDirectory.check_new(path)
    accelerator = join(device, tracker, path)
    where = accelerator.device
    copy = prompts if prompts is not None and is_copy(prompts) else None
    moved = resume and prompts is not None and copy is None
    source = str(prompts) if moved else recipe.prompts
    # one process of the run downloads first, and then one of each other machine
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        texts, held_out = (
            load_prompts(source, split, data_dir, copy, on_progress)
            for split in ("train", "validation")
        )
        check_prompts(recipe.rewards, [*texts.texts, *held_out.texts])
        outline = Outline.of(recipe.model(), where)
        if recipe.size is not None:
            outline.check_size(recipe.size, recipe.size)
        run = RunDirectory(path, identity(resolved(recipe, outline), outline, texts, held_out))
        checkpoint = _last(run, on_warning, accelerator) if resume else None
        fetch(recipe.model())
        scorers = RewardGroup(
            recipe.rewards,
            recipe.reward_paths,
            where,
            recipe.reward_dtype,
            recipe.offload_rewards,
            keep=path / REFUSED,
        )
    work = squares(recipe.model(), recipe.rollout_batch_size, recipe.size, recipe.guidance_scale)
    company = Company(
        tuple(scorers.sizes.values()),
        recipe.offload_rewards,
        "offload_rewards=true",
        "rollout_batch_size=",
    )
    if accelerator.is_main_process and (
        warning := advise(recipe.model(), work, where, encode_first=True, company=company)
    ):
        on_warning(warning)
    canvas = encode_first(
        recipe.model(),
        accelerator,
        recipe.guidance_scale,
        recipe.size,
        _wanted_prompts(recipe, path, texts, held_out),
        path / ".text",
    )
    scorers.place()
    backbone = canvas.backbone
    recipe = resolved(recipe, backbone)
    if accelerator.is_main_process and not resume:
        run.start(to_yaml(recipe))
    canvas = dataclasses.replace(canvas, guidance_scale=recipe.guidance_scale, size=recipe.size)
    trainer = Trainer(
        recipe,
        canvas,
        scorers,
        texts,
        _held_out(recipe, canvas, held_out, scorers),
        run,
        accelerator,
    )
    if resume:
        _restore(trainer, checkpoint)
    if tracker is not None:
        settings = {k: str(v) for k, v in recipe.model_dump(mode="json").items()}
        accelerator.init_trackers("asyncdiff", config=settings)
    accelerator.wait_for_everyone()
    return trainer


def resolved(recipe: Recipe, backbone: Backbone | Outline) -> Recipe:
    """The recipe with what it leaves to the backbone filled in, so that a run stays what it is."""
    own = {
        "dtype": next(k for k, v in DTYPES.items() if v is backbone.dtype),
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
    """Those of the iterations from the oldest checkpoint on, and the held-out ones."""
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
        run.forget_after(-1 if checkpoint is None else trainer.iteration)
        write_text(run.path / "recipe.yaml", to_yaml(trainer.recipe))
