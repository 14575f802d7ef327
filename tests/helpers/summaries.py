"""Summaries made by hand, so that every number of a table or a figure is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncdiff_cli.engine.evaluation.setting import Setting
from asyncdiff_cli.engine.evaluation.summary import Result, Summary
from asyncdiff_cli.engine.statistics import Difference

IMAGES = 4


def result(
    policy: str,
    gamma: float = 1.0,
    bound: float = 0.5,
    steps: int = 3,
    deviation: float = 0.0,
    **metrics: Any,
) -> Result:
    """A row. Each metric is (mean, difference, low, high); of the baseline, its mean."""
    found = {
        name: Difference(*(own if isinstance(own, tuple) else (own, 0.0, 0.0, 0.0)), IMAGES)
        for name, own in metrics.items()
    }
    deviations = np.full((IMAGES, steps - 1), deviation, np.float32)
    scores = {name: np.full(IMAGES, own.mean) for name, own in found.items()}
    return Result(Setting(policy, gamma, bound, steps), found, scores, deviations, 0.5)


def summary(*results: Result, partial: int = 0, **settings: Any) -> Summary:
    """Rows of mini, unless other settings are given."""
    settings = {"backbone": "mini", "dataset": "mini", **settings}
    rewards = tuple(results[0].metrics)
    return Summary(settings, rewards, results, IMAGES, partial)


def swept() -> Summary:
    """A baseline, one module at three γ, and a lifted one, with a gain that costs noise."""
    return summary(
        result("baseline", bound=1.0, clip=0.25, noise=-1.0),
        result("learned", 2.0, deviation=0.25, clip=(0.28, 0.03, 0.02, 0.05),
               noise=(-1.5, -0.5, -0.6, -0.25)),
        result("learned", 0.5, deviation=0.25, clip=(0.26, 0.01, 0.0, 0.02),
               noise=(-1.125, -0.125, -0.25, 0.0)),
        result("learned", 1.0, deviation=0.25, clip=(0.27, 0.02, 0.01, 0.04),
               noise=(-1.25, -0.25, -0.375, -0.125)),
        result("lifted", bound=1.0, deviation=0.75, clip=(0.29, 0.04, 0.03, 0.06),
               noise=(-2.0, -1.0, -1.25, -0.75)),
    )  # fmt: skip
