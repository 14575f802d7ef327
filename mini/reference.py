"""Real scenes of mini's validation prompts: their statistics ship beside the judge."""

from __future__ import annotations

import random
import tempfile
from itertools import cycle, islice
from pathlib import Path

from asyncdiff_cli.engine.evaluation.set_metrics.group import SetMetricGroup
from asyncdiff_cli.engine.evaluation.set_metrics.reference import find_reference
from asyncdiff_cli.engine.prompts.mini import EACH, compose
from asyncdiff_cli.engine.rewards.world.grammar import parse
from mini.compose import Composer, to_images
from mini.scenes import Batch, Scene, Scenes
from mini.settings import Settings

METRICS = ("fid_judge", "spectrum")


def real(scenes: Scenes, settings: Settings) -> list[Scene]:
    """Scenes of what ``asyncdiff eval --dataset mini`` draws, each prompt as often as others."""
    own, split = settings.evaluation, "validation"
    rng = random.Random(f"{own.seed}/reference")
    prompts = list(compose(scenes.colourable, split, EACH[split]))
    rng.shuffle(prompts)
    return [scenes.compose(parse(text), rng) for text in islice(cycle(prompts), own.pictures)]


def write(scenes: Scenes, composer: Composer, settings: Settings, target: Path) -> None:
    """Put the statistics of `real` scenes beside the judge in ``target``."""
    drawn, batch = real(scenes, settings), settings.evaluation.batch
    metrics = SetMetricGroup(METRICS, {"fid_judge": target}, composer.device)
    with tempfile.TemporaryDirectory() as pictures:
        for start in range(0, len(drawn), batch):
            rendered = composer.render(Batch.of(drawn[start : start + batch]))
            for number, image in enumerate(to_images(rendered), start):
                image.save(Path(pictures) / f"{number:06}.png")
        metrics.keep(find_reference(Path(pictures)), composer.size, target)
