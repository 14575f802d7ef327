"""Trainings in directories that are made once, and go on after a kill."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli import render
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.run import RECIPE
from asyncdiff_cli.engine.training.start import open_trainer
from asyncdiff_cli.engine.training.trainer import Trainer


def finish(recipe: Recipe, path: Path) -> Trainer:
    """Train in a directory that is held to the end, or go on there; its trainer then.

    Raises:
        InputError, AsyncDiffError: as `open_trainer` and `Trainer.train`.
    """
    trainer = open_trainer(recipe, path, (path / RECIPE).is_file(), on_warning=render.warning)
    if trainer.state.iteration < recipe.iterations:
        with render.training(recipe.iterations, trainer.state.iteration, True, False) as show:
            for kind, values in trainer.train():
                show(kind, values)
    return trainer


def check_same(recipe: Recipe, path: Path) -> None:
    """Check that a run that is there is of a recipe, but for what that leaves to the backbone.

    Raises:
        InputError: naming a setting that is another one there.
    """
    if not (path / RECIPE).is_file():
        return
    there = load_recipe(str(path / RECIPE)).model_dump()
    asked = {name: value for name, value in recipe.model_dump().items() if value is not None}
    if other := [name for name, value in asked.items() if there[name] != value]:
        raise InputError(f"{path} was trained with another {other[0]}: give another --out")
