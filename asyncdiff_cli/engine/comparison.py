"""Policies side by side: paired differences on the same prompts and noise, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from asyncdiff_cli.engine.rewards.composite import composite

RESAMPLES = 10_000
AT_ONCE = 500
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A mean, and by how much it differs from the baseline's."""

    mean: float
    difference: float
    low: float
    high: float
    """The ends of the 95 % bootstrap interval of the paired difference."""
    n: int

    @property
    def better(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of `values` [n]."""
    rng, even = np.random.default_rng(seed), np.full(len(values), 1 / len(values))
    means = [  # a few resamples at a time: all of them for 2,048 prompts are 160 MB
        rng.multinomial(len(values), even, AT_ONCE) @ values / len(values)
        for _ in range(RESAMPLES // AT_ONCE)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired(scores: ArrayLike, baseline: ArrayLike) -> Difference:
    """Compare scores with the baseline's of the same prompts and noise, both [n]."""
    own = np.asarray(scores, np.float64)
    difference = own - np.asarray(baseline, np.float64)
    low, high = bootstrap_interval(difference)
    return Difference(float(own.mean()), float(difference.mean()), low, high, len(difference))


def standard_error(scores: Tensor, baseline: Tensor) -> float:
    """Of the mean paired difference of two [n]; infinite for a single pair."""
    difference = (scores - baseline).double()
    if len(difference) < 2:
        return float("inf")
    return float(difference.std() / len(difference) ** 0.5)


def relative_composite(
    scores: Mapping[str, Tensor], baseline: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """R of images of many prompts, fp64 [n]: the weighted mean of z-scores (Eq. 16).

    Within a group z-scores have the mean 0 by construction. So each metric is put in units of the
    baseline's mean and standard deviation over all prompts; the baseline's composite has mean 0.
    A metric that is constant over the baseline contributes 0.
    """
    return composite(scores, weights, baseline)
