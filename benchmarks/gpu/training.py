"""What an iteration of the training costs beside its bare rollout, at the real backbone's size."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from asyncdiff_cli.engine import Backbone
from asyncdiff_cli.engine.conditions import EncodedText
from asyncdiff_cli.engine.launch import RECIPES, resolved
from asyncdiff_cli.engine.processes import join
from asyncdiff_cli.engine.prompts import load_prompts
from asyncdiff_cli.engine.recipes import Recipe, load_recipe, to_yaml
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.rollout import Canvas
from asyncdiff_cli.engine.runs import RunDirectory
from asyncdiff_cli.engine.training import Trainer
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.speed import compared
from benchmarks.overhead import LEAST
from benchmarks.train import ROLLOUTS_ONLY, measure

AIM = 1.03
"""Times the seconds of the bare rollout."""
WARM_UP = 1
"""Rounds that are not counted; the sections before have warmed up the backbone."""


def make_recipe(settings: Settings) -> Recipe:
    """The paper's for this backbone, with prompts and rewards that are part of the package.

    Those rewards take next to no time, so the updates weigh more here than beside the published
    ones.
    """
    published = ("image_reward", "hpsv2", "clip", "pickscore")
    return load_recipe(
        RECIPES[settings.backbone],
        [
            *ROLLOUTS_ONLY,
            *("prompts=mini", "evaluation.every=0", "dtype=null"),
            *(f"rewards.{name}=0" for name in published),
            *("rewards.noise=1", "rewards.sharpness=1"),
            f"iterations={WARM_UP + settings.rounds + 1}",
            f"num_inference_steps={settings.evaluations}",
            f"group_size={settings.group}",
            f"mini_batch_size={math.gcd(4, settings.group)}",
            f"size={settings.size}",
        ],
    )


def make_trainer(backbone: Backbone, settings: Settings, path: Path) -> Trainer:
    """A new run around a backbone that is loaded already, without held-out evaluation.

    Its prompts are encoded beforehand, as in any training.
    """
    recipe = resolved(make_recipe(settings), backbone)
    prompts = load_prompts(recipe.prompts, "train")
    text = EncodedText(path / ".text", "mine")
    encoder = Canvas.of(recipe, backbone)
    count = recipe.iterations * recipe.prompts_per_iteration
    wanted = text.missing(prompts.at(n, recipe.seed) for n in range(count))
    run = RunDirectory(path, identity="benchmark")
    run.start(to_yaml(recipe))
    for prompt in wanted:
        text.write(prompt, encoder.encode([prompt])[prompt])
    return Trainer(
        recipe,
        replace(encoder, text=text),
        RewardGroup(recipe.rewards, device=backbone.device),
        prompts,
        None,
        run,
        join(str(backbone.device)),
    )


def measure_training(backbone: Backbone, settings: Settings, per_image: float) -> dict[str, Any]:
    """Seconds of iterations over those of the same images through the stock pipeline.

    Args:
        per_image: the stock pipeline's seconds, as far as they are known.

    Raises:
        OverBudgetError: if there is no time for the least number of rounds.
    """
    settings.check_left(2 * (WARM_UP + LEAST) * settings.group * per_image)
    with TemporaryDirectory() as directory:
        trainer = make_trainer(backbone, settings, Path(directory) / "run")
        limit = settings.share(0.15)
        ours, theirs, _ = measure(trainer, settings.rounds, limit, WARM_UP)
    return {
        "images": settings.group,
        "steps": trainer.recipe.num_inference_steps,
        "iteration_seconds": float(np.median(ours)),
        "bare_seconds": float(np.median(theirs)),
        **compared(ours, theirs, AIM),
    }
