"""What the two embedded rewards reach on scenes that took no part in their training."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asyncdiff_cli.engine.rewards.mini_clip import MiniClip
from asyncdiff_cli.engine.rewards.mini_quality import MiniQuality
from asyncdiff_cli.engine.rewards.world.grammar import say
from asyncdiff_cli.engine.rewards.world.questions import make_questions
from mini.compose import Composer, to_images
from mini.contradictions import CONTRADICTIONS, can_contradict
from mini.ladders import Ladders
from mini.measures import spearman, summary
from mini.quality import Degrader, compressed, split
from mini.scenes import Batch, Scenes
from mini.settings import Settings

LEVELS = 6  # severities of each picture, evenly from none to the strongest
JPEG = (None, 90, 70, 50, 30, 10)
RESAMPLES = 200
WRONG = 4  # captions of each kind that the right one is compared with


@torch.no_grad()
def measure_clip(
    reward: MiniClip, scenes: Scenes, composer: Composer, settings: Settings
) -> dict[str, dict]:
    """The share of real scenes whose caption scores above every wrong one, by what is exchanged.

    The scenes show combinations that were never trained on.
    """
    own = settings.evaluation
    rng = random.Random(f"{own.seed}/clip")
    rows: dict[str, list[float]] = {name: [] for name in (*CONTRADICTIONS, "cosine", "wrong")}
    for question in make_questions(scenes.colourable, own.questions, own.seed):
        scene = scenes.compose(question.request, rng)
        picture = reward.embed_images(to_images(composer.render(Batch.of([scene]))))[0]
        request = scenes.facts(scene, rng) if question.category == "single" else question.request
        for name, exchange in CONTRADICTIONS.items():
            if can_contradict(request, name):
                wrong = [say(exchange(request, rng)) for _ in range(WRONG)]
                scores = reward.embed_texts([say(request), *wrong]) @ picture
                rows[name].append(float(scores[0] > scores[1:].max()))
                rows["cosine"].append(float(scores[0]))
                rows["wrong"].append(float(scores[1:].mean()))
    return {name: summary(values) for name, values in rows.items() if values}


@torch.no_grad()
def measure_quality(
    reward: MiniQuality,
    scenes: Scenes,
    composer: Composer,
    mini: Path,
    settings: Settings,
    work: Path,
) -> dict[str, dict]:
    """Spearman's ρ of severity and −score, within each picture and across pictures, by kind.

    On things that were kept from training, and with JPEG, which was not trained on.
    """
    own, seed = settings.quality, settings.evaluation.seed
    unseen = Scenes(scenes.drawings, split(scenes.things)[1])
    rng = random.Random(f"{seed}/quality")
    pictures = composer.render(Batch.of([unseen.draw(rng) for _ in range(own.measured)]))
    generator = torch.Generator(composer.device).manual_seed(seed)
    ladders = Ladders(unseen, composer, mini, settings, work)
    degrader, shown = Degrader(ladders.vae), {}
    for kind, most in own.severities.items():
        ones = torch.ones(len(pictures), device=composer.device)
        levels = torch.linspace(0, most, LEVELS).tolist()
        shown[kind] = [degrader(kind, pictures, ones * s, generator) for s in levels]
    drawn = ladders.draw(own.measured)
    shown["steps"] = [rung.float() / 127.5 - 1 for rung in drawn.unbind(1)]
    shown["jpeg"] = [compressed(pictures, q) if q else pictures.cpu() for q in JPEG]
    table = {}
    for kind, rungs in shown.items():
        scores = np.stack([_scores(reward, rung) for rung in rungs], axis=1)
        table[kind] = {"within": _within(scores), "across": _across(scores)}
        table.setdefault("clean", summary(scores[:, 0]))
    return table


def _scores(reward: MiniQuality, pictures: Tensor) -> np.ndarray:
    return reward.score(to_images(pictures)).double().numpy()


def _within(scores: np.ndarray) -> dict:
    severities = np.arange(scores.shape[1])
    return summary([spearman(severities, -row) for row in scores])


def _across(scores: np.ndarray) -> dict:
    """The mean over pictures at one severity each; all are shown equally often."""
    rng = np.random.default_rng(0)
    levels = rng.permutation(np.arange(len(scores)) % scores.shape[1])
    chosen = scores[np.arange(len(scores)), levels]
    picks = rng.integers(len(scores), size=(RESAMPLES, len(scores)))
    low, high = np.nanpercentile([spearman(levels[p], -chosen[p]) for p in picks], (2.5, 97.5))
    mean = spearman(levels, -chosen)
    return {"mean": mean, "interval": [float(low), float(high)], "n": len(scores)}
