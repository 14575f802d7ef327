"""Stage ``deviation``: what a fixed deviation does to mini, to choose its default by.

Every D draws the same prompts from the same noise, so that differences to D = 0 are paired.
"""

import numpy as np
import torch

from asyncdiff_cli.engine import Backbone, FixedDeviation, sample
from asyncdiff_cli.engine.rewards.sharpness import LUMINANCE, detail
from mini.data import Composer
from mini.evaluate import EVALUATION_SEED, Question, Retrieval, questions, summary

DEVIATIONS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)
PROMPTS = 80
MEASURES = ("similarity", "right", "detail", "noise")


def measure(backbone: Backbone, retrieval: Retrieval, composer: Composer) -> dict[str, dict]:
    """Per D and measure, the mean and the paired difference to D = 0; and the real art's means."""
    every = questions(composer)[0]
    asked = [every[i] for i in np.linspace(0, len(every) - 1, PROMPTS).round().astype(int)]
    rng = np.random.default_rng(EVALUATION_SEED)
    real = [composer.draw(list(q.concepts), q.colour, rng).picture for q in asked]
    rows = {d: [_values(_draw(backbone, q, n, d), q, retrieval) for n, q in enumerate(asked)]
            for d in DEVIATIONS}  # fmt: skip
    art = np.array([_values(p, q, retrieval) for p, q in zip(real, asked, strict=True)])
    table: dict[str, dict] = {"real": dict(zip(MEASURES, art.mean(0).tolist(), strict=True))}
    for d, values in rows.items():
        means, change = np.array(values), np.array(values) - np.array(rows[0.0])
        table[f"{d:+g}"] = {
            name: {"mean": float(means[:, i].mean()), "change": summary(change[:, i])}
            for i, name in enumerate(MEASURES)
        }
    return table


def _draw(backbone: Backbone, question: Question, number: int, deviation: float) -> np.ndarray:
    generator = torch.Generator().manual_seed(EVALUATION_SEED + number)
    policy = FixedDeviation(deviation)
    result = sample(backbone, question.prompt, policy, generator=generator)
    return np.asarray(result.images[0])


def _values(picture: np.ndarray, question: Question, retrieval: Retrieval) -> list[float]:
    concept = question.concepts[0]
    similarity = retrieval.similarity(picture)[retrieval.names.index(concept.name)]
    right = retrieval.rank(picture, concept) < 1
    return [float(similarity), float(right), detail(picture), noise(picture)]


def noise(picture: np.ndarray) -> float:
    """Standard deviation of Gaussian noise, of 255 (Immerkær, 1996), in the luminance."""
    luminance = picture.astype(float) @ LUMINANCE
    across = luminance[:, :-2] - 2 * luminance[:, 1:-1] + luminance[:, 2:]
    response = across[:-2] - 2 * across[1:-1] + across[2:]  # the mask is separable
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(response).mean())
