"""What is measured on sets of pictures and on ranks, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from asyncdiff_cli.engine.evaluation.set_metrics.base import SetMetric
from asyncdiff_cli.engine.statistics import bootstrap_interval


def summary(values: Sequence[float]) -> dict[str, float | list[float] | int]:
    """Mean with a 95 % percentile bootstrap interval over the pictures."""
    array = np.asarray(values, float)
    return {
        "mean": float(array.mean()),
        "interval": list(bootstrap_interval(array)),
        "n": len(array),
    }


def distance(
    metric: type[SetMetric], drawn: Tensor, statistics: Mapping[str, Tensor]
) -> dict[str, float | int]:
    """A set metric of drawn features [N, F], with its standard error over the pictures."""
    terms = metric.against(statistics)(drawn).numpy()
    error = terms.std(ddof=1) / len(terms) ** 0.5
    return {"mean": float(terms.mean()), "sd": float(error), "n": len(terms)}


def fine_detail(drawn: Tensor, target: Tensor) -> dict:
    """How far the finer half of the spectra [N, F] is above the mean spectrum [F], in dB."""
    half = drawn.shape[1] // 2
    return summary((drawn[:, half:].mean(1) - target[half:].mean()).tolist())


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's ρ, with average ranks for ties; NaN where one of them is constant."""
    first, second = (_ranks(values) for values in (one, other))
    first, second = first - first.mean(), second - second.mean()
    length = np.sqrt(np.square(first).sum() * np.square(second).sum())
    return float((first * second).sum() / length) if length > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
