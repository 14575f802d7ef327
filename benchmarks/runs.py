"""Trainings in directories that are made once, and go on after a kill."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli import render
from asyncdiff_cli.engine.locks import hold
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.run import RECIPE
from asyncdiff_cli.engine.training.start import open_trainer
from asyncdiff_cli.engine.training.trainer import Trainer


def finish(recipe: Recipe, path: Path) -> Trainer:
    """Train in a directory to the end, or go on there; its trainer then.

    Raises:
        InputError, AsyncDiffError: as `open_trainer` and `Trainer.train`.
    """
    with hold(path):
        trainer = open_trainer(recipe, path, (path / RECIPE).is_file(), on_warning=render.warning)
        if trainer.state.iteration < recipe.iterations:
            with render.training(recipe.iterations, trainer.state.iteration, True, False) as show:
                for kind, values in trainer.train():
                    show(kind, values)
    return trainer
