"""Deviations that are given: none, one for all steps, or one a step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from asyncdiff_cli.engine.checks import check_deviation
from asyncdiff_cli.engine.errors import AsyncDiffWarning, InputError
from asyncdiff_cli.engine.policies.base import Described, Policy, StepState


@dataclass(frozen=True)
class Synchronous(Described):
    """D = 0: the stock pipeline, to the bit.

    Example:
        >>> Synchronous().to_dict()
        {'name': 'synchronous'}
    """

    name: ClassVar[str] = "synchronous"
    bound: ClassVar[float] = 1.0

    def __call__(self, state: StepState) -> Tensor:
        return torch.zeros(())


@dataclass(frozen=True)
class FixedDeviation(Described):
    """One constant deviation (AsyncDiff, end of section 4.2).

    Args:
        deviation: D in [-1, 1], for all images, or a sequence or tensor with one per image.

    Raises:
        InputError: for a value outside [-1, 1] or not a number.

    Example:
        >>> FixedDeviation(0.5).deviation
        0.5
        >>> FixedDeviation([0.5, -0.25]).deviation  # one per image
        (0.5, -0.25)
    """

    deviation: float | tuple[float, ...]

    name: ClassVar[str] = "fixed"
    bound: ClassVar[float] = 1.0

    def __init__(self, deviation: float | Sequence[float] | Tensor) -> None:
        values = _checked(deviation, self.bound)
        object.__setattr__(self, "deviation", values if np.ndim(deviation) else values[0])

    def __call__(self, state: StepState) -> Tensor:
        return torch.tensor(self.deviation)


@dataclass(frozen=True)
class ScheduledDeviation(Described):
    """A deviation per decision, resampled linearly for runs with another number of decisions.

    Args:
        deviations: D for evaluations 1 … K − 1, each in [-bound, bound].
        bound: 0.5 or 1.

    Raises:
        InputError: for an empty list, another bound, or a value outside it or not a number.

    Example:
        >>> policy = ScheduledDeviation([0.0, 0.5, 1.0])  # for runs of 4 steps
        >>> policy.resampled(5)
        (0.0, 0.25, 0.5, 0.75, 1.0)
    """

    deviations: tuple[float, ...]
    bound: float = 1.0

    name: ClassVar[str] = "schedule"

    def __init__(self, deviations: Sequence[float] | Tensor, bound: float = 1.0) -> None:
        object.__setattr__(self, "bound", _checked_bound(bound))
        object.__setattr__(self, "deviations", _checked(deviations, bound))

    @classmethod
    def ramp(
        cls, start: float, end: float, decisions: int, shape: float = 1.0, bound: float = 1.0
    ) -> ScheduledDeviation:
        """A schedule from `start` to `end` along u^shape: linear at 1, late above, early below.

        Raises:
            InputError: as the class, and for `decisions` < 1 or `shape` ≤ 0.
        """
        if decisions < 1 or not shape > 0:
            raise InputError(
                f"a ramp needs at least 1 decision and a shape above 0, not {decisions}, {shape}"
            )
        values = start + (end - start) * np.linspace(0, 1, decisions) ** shape
        return cls(values.tolist(), bound)

    def __call__(self, state: StepState) -> Tensor:
        return torch.tensor(self.resampled(state.num_evaluations - 1)[state.index])

    def resampled(self, decisions: int) -> tuple[float, ...]:
        """The schedule for another number of decisions; unchanged for its own."""
        return resample(self.deviations, decisions)


def resample(values: tuple[float, ...], decisions: int) -> tuple[float, ...]:
    """Values for another number of decisions, on the lines between; unchanged for their own."""
    if decisions == len(values):
        return values
    places = np.linspace(0, 1, len(values))
    return tuple(np.interp(np.linspace(0, 1, decisions), places, values).tolist())


@dataclass(frozen=True)
class SolverSchedule(ScheduledDeviation):
    """A schedule that holds for one solver, as a schedule file has it.

    Args:
        deviations, bound: as of `ScheduledDeviation`.
        solver: the name of the scheduler whose runs it is for.
        source: the hub repository that its file came from, with the commit.

    Raises:
        InputError: as `ScheduledDeviation`; in a run by another solver.
    """

    solver: str = "euler"
    source: str | None = None

    name: ClassVar[str] = "solver-schedule"

    def __init__(
        self,
        deviations: Sequence[float] | Tensor,
        solver: str = "euler",
        bound: float = 1.0,
        source: str | None = None,
    ) -> None:
        super().__init__(deviations, bound)
        object.__setattr__(self, "solver", solver)
        object.__setattr__(self, "source", source)

    def to_dict(self) -> dict[str, Any]:
        described = super().to_dict()
        if self.source is None:  # as of a file on the disk
            del described["source"]
        return described

    def for_run(self, sigmas: Tensor, solver: str) -> Policy:
        """The deviations of the run's evaluations; a warning says where they are resampled."""
        if solver != self.solver:
            raise InputError(
                f"the schedule is for runs by {self.solver}, and this one is by {solver}: another"
                " solver needs other deviations"
            )
        decisions = len(sigmas) - 2
        if decisions > 0 and decisions != len(self.deviations):
            warnings.warn(
                f"the schedule has {len(self.deviations)} deviations and the run takes {decisions}:"
                " it is resampled, and no longer what it was made to be",
                AsyncDiffWarning,
                stacklevel=2,
            )
        return ScheduledDeviation(self.resampled(max(decisions, 1)), self.bound)


def _checked(deviation: Any, bound: float) -> tuple[float, ...]:
    try:
        if torch.as_tensor(deviation).dtype is torch.bool:
            raise TypeError  # which as fp64 would be 0 or 1
        values = torch.as_tensor(deviation, dtype=torch.float64).reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"a deviation is a number, not {deviation!r}") from None
    if not values:
        raise InputError("no deviation given")
    for value in values:
        check_deviation(value, bound)
    return tuple(values)


def _checked_bound(bound: float) -> float:
    if bound not in (0.5, 1.0):
        raise InputError(f"bound is 0.5 or 1, not {bound!r}")
    return float(bound)
