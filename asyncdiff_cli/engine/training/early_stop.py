"""Reward hacking, seen early: the reward of the training rises while what it stands for falls."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asyncdiff_cli.engine.statistics import standard_error

ERRORS = 2.0
"""A fall counts from so many standard errors of the paired difference."""


@dataclass(frozen=True)
class Snapshot:
    """An evaluation, as far as later ones are compared with it. All are per held-out prompt."""

    iteration: int
    training: float
    """Mean composite of the training images since the evaluation before, in baseline units."""
    held_out: tuple[float, ...]
    """Composite, in baseline units."""
    noise: tuple[float, ...]
    """The residual-noise guard; higher is cleaner."""

    @property
    def reward(self) -> float:
        """The mean held-out composite."""
        return sum(self.held_out) / len(self.held_out)


@dataclass(frozen=True)
class EarlyStop:
    """The first and the best evaluation so far, and how many in a row have been bad signs.

    The first one's noise may be replaced by the baseline's, so that what came before it counts.
    """

    first: Snapshot | None = None
    best: Snapshot | None = None
    bad: int = 0

    def update(self, now: Snapshot) -> tuple[EarlyStop, str | None]:
        """What is known after one more evaluation, and a warning if it is a bad sign."""
        if self.first is None or self.best is None:
            return EarlyStop(self.first or now, now), None
        best = now if now.reward > self.best.reward else self.best
        fallen = []
        if now.training > self.first.training:
            if _fell(now.held_out, self.best.held_out):
                fallen.append(
                    f"the held-out reward fell from {self.best.reward:+.3f} (iteration"
                    f" {self.best.iteration}) to {now.reward:+.3f}"
                )
            if _fell(now.noise, self.first.noise):
                fallen.append(
                    f"the residual noise rose from {-_mean(self.first.noise):.2f} to"
                    f" {-_mean(now.noise):.2f} of 255"
                )
        if not fallen:
            return EarlyStop(self.first, best), None
        return EarlyStop(self.first, best, self.bad + 1), (
            f"iteration {now.iteration}: the training reward rose, but {' and '.join(fallen)}"
        )


def _fell(now: tuple[float, ...], before: tuple[float, ...]) -> bool:
    """Whether the paired mean fell by more than chance explains."""
    a, b = torch.tensor(now, dtype=torch.float64), torch.tensor(before, dtype=torch.float64)
    return float((a - b).mean()) < -ERRORS * standard_error(a, b)


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)
