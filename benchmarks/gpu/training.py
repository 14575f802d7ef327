"""What an iteration of the training costs beside its bare rollout, at the real backbone's size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from asyncdiff_cli.engine import Backbone
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.encoded_text import EncodedText
from asyncdiff_cli.engine.processes import join
from asyncdiff_cli.engine.prompts.load import load_prompts
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import load_recipe, to_yaml
from asyncdiff_cli.engine.training.run import RunDirectory
from asyncdiff_cli.engine.training.run_options import RECIPES
from asyncdiff_cli.engine.training.start import resolved
from asyncdiff_cli.engine.training.trainer import Trainer
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.rows import Row, Task
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.speed import compared
from benchmarks.overhead import LEAST, measure
from benchmarks.train import BARE, ITERATION, ROLLOUTS_ONLY, jobs

AIM = 1.03
"""Times the seconds of the bare rollout."""
PART = 0.12
"""Share of the budget: after it no more rounds are begun than the least number."""
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
            f"iterations={WARM_UP + settings.rounds + 2}",
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
    encoder = Canvas(backbone, recipe.guidance_scale, recipe.size)
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


def tasks(bench: Bench) -> Iterator[Task]:
    """Iterations over the same images through the stock pipeline."""
    least = 2 * (WARM_UP + LEAST) * bench.seconds(bench.settings.group)
    yield Task({"images": bench.settings.group}, partial(_rounds, bench), least)


def _rounds(bench: Bench) -> Iterator[Row]:
    settings = bench.settings
    with TemporaryDirectory() as directory:
        trainer = make_trainer(bench.loaded, settings, Path(directory) / "run")
        every = jobs(trainer, [])
        both = {name: every[name] for name in (ITERATION, BARE)}
        seconds = measure(both, settings.rounds, settings.share(PART), WARM_UP)
    ours, theirs = seconds[ITERATION], seconds[BARE]
    yield {
        "method": "iteration / bare rollout",
        "iteration_seconds": float(np.median(ours)),
        "bare_seconds": float(np.median(theirs)),
        **compared(ours, theirs, AIM),
    }
