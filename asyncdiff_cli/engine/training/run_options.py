"""What a user asks of `train`, checked before anything heavy is imported: the recipe, the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.choice import DEFAULT_BACKBONE, NEUTRAL, ModelChoice
from asyncdiff_cli.engine.backbones.compatibility import check_asked, check_known_size
from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.backbones.named import check_model
from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import existing, expanded
from asyncdiff_cli.engine.policies.specs import find_policy, is_schedule_file, pinned
from asyncdiff_cli.engine.prompts.hub_set import is_hub_set, pinned_source
from asyncdiff_cli.engine.prompts.load import SOURCES, check_source, is_source
from asyncdiff_cli.engine.training.recipe import RESUMABLE, Recipe
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.run import RunDirectory

RECIPES = {"mini": "mini", "flux": "flux-coco", "sd35": "sd35-coco"}
"""What a backbone is trained with unless asked otherwise."""
TRACKERS = (
    *("tensorboard", "wandb", "trackio", "mlflow", "swanlab", "comet_ml"),
    *("clearml", "dvclive", "aim"),
)
"""Trackers that accelerate knows by name, which is also that of their package."""


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
        prompts: a text or JSONL file of prompts, or a data set, in place of the recipe's.

    Raises:
        InputError: for options that exclude each other, for a directory that holds no run or, for
            a new one, is not empty, and for overrides that a resumed run cannot take.
    """
    if prompts is not None and not is_copy(prompts) and resume is None:
        place = prompts if is_hub_set(prompts) else prompts.absolute()
        overrides = [*overrides, f"prompts={place}"]
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
        check_source(found.prompts)
        _check_recipe(found)
        if found.start is not None:
            find_policy(found.start)
        return found, path
    if recipe is not None or out is not None:
        raise InputError("--resume goes on with a run's own recipe and directory: give neither")
    file = resume / "recipe.yaml"
    if not file.is_file():
        raise InputError(f"{resume} is not a run: it has no recipe.yaml")
    before, after = load_recipe(str(file)), load_recipe(str(file), overrides)
    kept = {name: getattr(before, name) for name in Recipe.model_fields if name not in RESUMABLE}
    changed = [
        name
        for name, value in kept.items()
        if getattr(after, name) not in (value, value or NEUTRAL.get(name))
    ]
    if changed:
        raise InputError(
            f"a run that goes on keeps its {', '.join(changed)}; start another with --recipe {file}"
            f" (what may change: {', '.join(RESUMABLE)})"
        )
    found = after.model_copy(update=kept)
    given = ModelChoice(backbone=backbone, lora=found.lora if changes_of(overrides, "lora") else ())
    check_model(resume, found.model(), given)
    if prompts is None and not is_source(found.prompts):
        raise InputError(
            f"{resume} is of the prompts in {found.prompts}, and there is no such file: give"
            " --prompts FILE with its place"
        )
    _check_recipe(found)
    return found, resume


def changes_of(overrides: Sequence[str], key: str) -> list[str]:
    """The overrides of a key."""
    return [override for override in overrides if override.partition("=")[0].strip() == key]


def _check_recipe(recipe: Recipe) -> None:
    """Check that the model can be, and that what it and the rewards are read from is there."""
    model = recipe.model()
    check_asked(model)
    if recipe.size is not None:
        check_known_size(model, recipe.size, recipe.size)
    for file in recipe.reward_paths.values():
        existing(file, "file")


def _absolute(recipe: Recipe) -> Recipe:
    """The recipe with the places of files as they are from any directory: a run may go on.

    A start and prompts on the hub are named by their commits.
    """

    def place(text: str) -> str:
        path = expanded(text)
        return str(path.absolute()) if path.exists() else text

    changes: dict[str, Any] = {
        name: place(value)
        for name in ("prompts", "backbone", "model_path")
        if (value := getattr(recipe, name)) and value not in (*SOURCES, *REGISTRY)
    }
    changes["prompts"] = pinned_source(changes.get("prompts", recipe.prompts))
    changes["lora"] = tuple(LoRA.parse(text).absolute() for text in recipe.lora)
    if recipe.start is not None and is_schedule_file(recipe.start):
        name, _, file = recipe.start.partition(":")
        changes["start"] = f"{name}:{place(file)}"
    elif recipe.start is not None:
        changes["start"] = pinned(recipe.start)
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
    return path.is_dir() or (path.suffix == ".json" and not is_hub_set(path))


def check_tracker(tracker: str | None) -> None:
    """A tracker is known and installed; None is none.

    Raises:
        InputError: for one that is not.
    """
    if tracker is not None:
        check_choice("tracker", tracker, TRACKERS)
        if find_spec(tracker) is None:
            raise InputError(f"{tracker} is not installed: pip install {tracker}")
