"""Policies side by side: paired differences on the same prompts and noise, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from torch import Tensor


RESAMPLES = 10_000
AT_ONCE = 1 << 18
"""Draws that are in memory at once."""
MANY_VALUES = 4096
"""Values from which on they are drawn by their places, which takes a third of the time."""
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
    low, high = bootstrap_intervals(values[None], seed)[0]
    return float(low), float(high)


def bootstrap_intervals(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """The `bootstrap_interval` of each row of `values` [m, n], of the same resamples, [m, 2]."""
    ends = values[:, [0, 0]].astype(np.float64)  # where all are equal there is nothing to draw
    varied = np.ptp(values, axis=1) > 0
    if varied.any():
        own, n = values[varied], values.shape[1]
        means = [[counts @ row / n for row in own] for counts in _resamples(n, seed)]
        quantiles = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        ends[varied] = np.quantile(np.concatenate(means, axis=1), quantiles, axis=1).T
    return ends


def _resamples(n: int, seed: int) -> Iterator[np.ndarray]:
    """How often each resample of n values has each of them, [some resamples, n] at a time."""
    rng, at_once = np.random.default_rng(seed), max(1, AT_ONCE // n)
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        if n < MANY_VALUES:
            counts = rng.multinomial(n, np.full(n, 1 / n), size)
        else:
            drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        yield counts.astype(np.float64)


def paired(scores: ArrayLike, baseline: ArrayLike) -> Difference:
    """Compare scores with the baseline's of the same prompts and noise, both [n]."""
    return all_paired([(scores, baseline)])[0]


def all_paired(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> list[Difference]:
    """The `paired` of each pair, all of them of equal n, for the price of one."""
    own = np.stack([np.asarray(scores, np.float64) for scores, _ in pairs])
    difference = own - np.stack([np.asarray(baseline, np.float64) for _, baseline in pairs])
    means = zip(own.mean(1), difference.mean(1), bootstrap_intervals(difference), strict=True)
    n = own.shape[1]
    return [
        Difference(float(m), float(d), float(low), float(high), n) for m, d, (low, high) in means
    ]


def standard_error(scores: Tensor, baseline: Tensor) -> float:
    """The standard error of the mean paired difference of two [n]; infinite for a single pair."""
    difference = (scores - baseline).double()
    if len(difference) < 2:
        return float("inf")
    return float(difference.std() / len(difference) ** 0.5)
