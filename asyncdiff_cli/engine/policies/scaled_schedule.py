"""A schedule of deviations and of scales of the velocity: what a joint module decides, for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.checks import check_scale
from asyncdiff_cli.engine.deferred import to_device
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.policies.base import Described, Policy, StepState
from asyncdiff_cli.engine.policies.given import ScheduledDeviation, resample


@dataclass(frozen=True)
class ScaledSchedule(Described):
    """A deviation and a velocity scale per decision, resampled linearly for runs of other lengths.

    The velocity of evaluation k is multiplied by 1 + γ·(ω_k − 1), and t*_k deviates by γ·D_k, from
    evaluation 1 on: the first is the stock sampler's, as that of a module is.

    Args:
        deviations: D for evaluations 1 … K − 1, each in [-1, 1].
        scales: ω of the same, each in [0.5, 1.5] (Eq. 20).

    Raises:
        InputError: for empty lists, lists of different lengths, or a value out of its range.

    Example:
        >>> policy = ScaledSchedule([0.5, 0.0], [0.9, 1.0])
        >>> policy.to_dict()
        {'name': 'scaled-schedule', 'deviations': [0.5, 0.0], 'scales': [0.9, 1.0]}
    """

    deviations: tuple[float, ...]
    scales: tuple[float, ...]

    name: ClassVar[str] = "scaled-schedule"
    bound: ClassVar[float] = 1.0

    def __init__(self, deviations: Sequence[float], scales: Sequence[float]) -> None:
        given = ScheduledDeviation(deviations)
        for scale in scales:
            check_scale(scale)
        if len(scales) != len(given.deviations):
            raise InputError(
                f"each deviation has a velocity scale: there are {len(given.deviations)} and"
                f" {len(scales)}"
            )
        object.__setattr__(self, "deviations", given.deviations)
        object.__setattr__(self, "scales", tuple(map(float, scales)))

    def for_run(self, sigmas: Tensor, solver: str) -> Policy:
        """The same, which knows the evaluation by its time; of two at one time, the first."""
        times = tuple(sigmas[:-1].tolist())
        return _InRun(self, times, (1.0, *resample(self.scales, len(times) - 1)))

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor:
        """Refuse: which evaluation it is, a run's own copy knows. Raises: AsyncDiffError."""
        raise AsyncDiffError("a scaled schedule is made for a run: ask what `for_run` gives")

    def __call__(self, state: StepState) -> Tensor:
        return torch.tensor(resample(self.deviations, state.num_evaluations - 1)[state.index])


@dataclass(frozen=True)
class _InRun:
    """A schedule in a run with evaluations at `times`, and the ω of each."""

    schedule: ScaledSchedule
    times: tuple[float, ...]
    scales: tuple[float, ...]

    @property
    def bound(self) -> float:
        """The schedule's bound."""
        return self.schedule.bound

    def __call__(self, state: StepState) -> Tensor:
        return self.schedule(state)

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor:
        """1 + γ·(ω − 1) with the ω of the evaluation at `sigma`, [B]; 1 at the first one."""
        factors = desync.scale_factor(torch.tensor(self.scales), gamma)
        factors = to_device(factors, cond_sigma.device)
        place = (to_device(torch.tensor(self.times), sigma.device) - sigma).abs().argmin()
        return factors[place].expand_as(cond_sigma)

    def to_dict(self) -> dict[str, Any]:
        """Name and settings of the schedule."""
        return self.schedule.to_dict()
