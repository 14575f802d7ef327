"""Real scenes that no training drew, and their statistics, which ship beside the judge."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from asyncdiff_cli.engine.rewards.world.grammar import Request
from asyncdiff_cli.engine.set_metrics.group import SetMetricGroup
from asyncdiff_cli.engine.set_metrics.reference import find_reference
from mini.compose import Composer, to_images
from mini.scenes import Batch, Scene, Scenes
from mini.settings import Settings

METRICS = ("fid_judge", "spectrum")


def world(scenes: Scenes, settings: Settings) -> list[tuple[Request, Scene]]:
    """Twice as many scenes as the reference has, and what their captions say."""
    own = settings.evaluation
    rng = random.Random(f"{own.seed}/world")
    drawn = [scenes.draw(rng) for _ in range(2 * own.pictures)]
    return [(scenes.facts(scene, rng), scene) for scene in drawn]


def write(scenes: Scenes, composer: Composer, settings: Settings, target: Path) -> None:
    """Put the statistics of the first half of the `world` beside the judge in ``target``."""
    own = settings.evaluation
    drawn = [scene for _, scene in world(scenes, settings)[: own.pictures]]
    metrics = SetMetricGroup(METRICS, {"fid_judge": target}, composer.device)
    with tempfile.TemporaryDirectory() as pictures:
        for start in range(0, len(drawn), own.batch):
            rendered = composer.render(Batch.of(drawn[start : start + own.batch]))
            for number, image in enumerate(to_images(rendered), start):
                image.save(Path(pictures) / f"{number:06}.png")
        metrics.keep(find_reference(Path(pictures)), composer.size, target)
