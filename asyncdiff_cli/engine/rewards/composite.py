"""Several rewards as one: z-scores within a group, and their weighted mean (Eq. 16)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.rewards import checked

CONSTANT = 1e-6
"""A metric whose deviation within a group is below this share of its largest score is constant:
what is left is rounding, which a z-score would blow up to a signal."""


def standardize(scores: Tensor, reference: Tensor | None = None) -> Tensor:
    """z-scores, fp64 [N] of [N], by the scores' own mean and standard deviation (of N).

    A constant metric says nothing about the group, and gives zeros.

    Args:
        reference: the scores, [n], whose mean and deviation are taken instead.
    """
    scores = scores.double()
    own = scores if reference is None else reference.double()
    deviation = own.std(correction=0)
    if deviation <= CONSTANT * own.abs().max():
        return torch.zeros_like(scores)
    return (scores - own.mean()) / deviation


def composite(
    scores: Mapping[str, Tensor],
    weights: Mapping[str, float],
    reference: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """R of a group, fp64 [N]: the weighted mean of the metrics' z-scores (Eq. 16).

    Args:
        scores: per metric the group's scores, [N], higher is better.
        weights: per metric a weight, as `parse_weights` returns them.
        reference: per metric the scores that z-scores are taken by, as in `standardize`.

    Raises:
        InputError: if a metric that is weighted has no scores.

    Example:
        >>> import torch
        >>> scores = {"clip": torch.tensor([0.2, 0.3]), "noise": torch.tensor([-1.0, -1.0])}
        >>> composite(scores, {"clip": 1.0, "noise": 0.5})
        tensor([-0.6667,  0.6667], dtype=torch.float64)
    """
    if missing := [name for name in weights if name not in scores]:
        raise InputError(f"there are no scores of {', '.join(missing)}, which the rewards name")
    total = sum(weights.values())
    parts = [
        w / total * standardize(scores[name], None if reference is None else reference[name])
        for name, w in weights.items()
    ]
    return torch.stack(parts).sum(0)


def relative_composite(
    scores: Mapping[str, Tensor], baseline: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """R of images of many prompts, fp64 [n]: the weighted mean of z-scores (Eq. 16).

    Within a group z-scores have the mean 0 by construction. So each metric is put in units of the
    baseline's mean and standard deviation over all prompts; the baseline's composite has mean 0.
    A metric that is constant over the baseline contributes 0.
    """
    return composite(scores, weights, baseline)


def parse_weights(rewards: Mapping[str, Any]) -> dict[str, float]:
    """The rewards that a recipe names, with their weights; a weight of 0 leaves one out.

        rewards: {image_reward: 1, hpsv2: 1, clip: 1, pickscore: 1}

    Raises:
        InputError: for an unknown name, a weight that is not a finite number from 0, or no reward.
    """
    if not isinstance(rewards, Mapping):
        raise InputError("rewards are names with weights, such as {image_reward: 1, hpsv2: 1}")
    for name, weight in rewards.items():
        checked(name)
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise InputError(f"the weight of {name} is a finite number from 0, not {weight!r}")
    weights = {name: float(weight) for name, weight in rewards.items() if weight}
    if not weights:
        raise InputError("no reward has a weight above 0")
    return weights
