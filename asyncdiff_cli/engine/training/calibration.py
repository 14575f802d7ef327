"""A schedule from a model itself: the deviations that bring few steps closest to many.

No reward takes part. A run of many steps of the same model is the teacher, whose grid holds the
student's: each interval is split. The student's deviations are found one by one, each by what its
next latents lack to the teacher's, and then refined by what the last ones lack.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.sampling.loop import Velocity

SPLIT = 10
"""Steps of the teacher in one of the student's."""
CANDIDATES = 6
"""Evaluations of a line search: in one deviation the error is close to a parabola."""
SWEEPS = 1
DECIMALS = 3
"""Decimals of a deviation, far below what can be seen."""


@dataclass(frozen=True)
class Images:
    """Images that are drawn together."""

    velocity: Velocity
    latents: Tensor
    """Noise at t_0, [B, …]."""


@dataclass(frozen=True)
class Search:
    """How long is searched.

    Args:
        split: steps of the teacher in one of the student's, at least 2.
        candidates: evaluations of a line search, at least 3.
        sweeps: how often all deviations are refined on the last latents, at least 0.
    """

    split: int = SPLIT
    candidates: int = CANDIDATES
    sweeps: int = SWEEPS

    def __post_init__(self) -> None:
        for name, least in (("split", 2), ("candidates", 3), ("sweeps", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is at least {least}, not {getattr(self, name)}")

    def evaluations(self, steps: int) -> int:
        """How often the denoiser is asked for each image, at most."""
        finding = (self.candidates + 1) * (steps - 1)
        refining = self.sweeps * (self.candidates + 1) * steps * (steps - 1) // 2
        passes = 1 + self.sweeps + 2 * (self.sweeps > 0)
        return (self.split + passes) * steps + finding + refining


@dataclass(frozen=True)
class Settled:
    """A deviation that was decided on."""

    index: int
    """The evaluation that it is for, from 1."""
    sweep: int
    """0 while they are found one by one."""
    deviation: float
    error: float
    """Mean square of what the next latents lack to the teacher's, in a sweep the last ones."""


@dataclass(frozen=True)
class _Student:
    """Where a run of some images is."""

    latents: Tensor
    scheduler: Any


def deviations_of(settled: Iterable[Settled]) -> tuple[float, ...]:
    """The deviations, in the order of their evaluations."""
    last = {one.index: one.deviation for one in settled}
    return tuple(last[index] for index in sorted(last))


def teach(images: Images, sigmas: Sequence[float], split: int) -> list[Tensor]:
    """Draw in many steps of Euler, and keep the latents at the times of a grid.

    Args:
        sigmas: t_0 … t_K.
        split: steps in each interval, even in t.

    Returns:
        x at t_1 … t_K, fp32 (fp64 for such latents).
    """
    dtype = images.latents.dtype
    wide = torch.promote_types(dtype, torch.float32)
    latents, kept = images.latents.to(wide), []
    for start, stop in itertools.pairwise(sigmas):
        times = torch.linspace(start, stop, split + 1, dtype=torch.float64)
        for time, following in itertools.pairwise(times):
            sigma = time.to(latents.device, torch.float32)
            velocity = images.velocity(
                latents.to(dtype), desync.in_timesteps(sigma), sigma, sigma.expand(len(latents))
            )
            latents = latents + float(following - time) * velocity.to(wide)
        kept.append(latents)
    return kept


class Calibration:
    """The search for D_1 … D_{K−1} in [−1, 1] of a grid.

    Args:
        images: batches that are searched over together.
        make: gives a new scheduler that is set to K steps, of one evaluation each.
        search: how long is searched; default as `Search`.

    Raises:
        InputError: for a scheduler that evaluates twice a step, or whose grid ends above 0.
    """

    def __init__(
        self, images: Sequence[Images], make: Callable[[], Any], search: Search | None = None
    ) -> None:
        self.images, self.make, self.search = images, make, search or Search()
        scheduler = make()
        self.sigmas, self.timesteps = scheduler.sigmas, scheduler.timesteps
        self.steps = len(self.timesteps)
        if len(self.sigmas.unique()) != self.steps + 1 or self.sigmas[-1] != 0:
            raise InputError("a calibration needs one evaluation a step, and a grid that ends at 0")

    @cached_property
    def teachers(self) -> list[list[Tensor]]:
        """The `teach` of each batch."""
        return [teach(each, self.sigmas.tolist(), self.search.split) for each in self.images]

    def error(self, deviations: Sequence[float]) -> float:
        """Mean square of what the last latents lack to the teacher's, with such deviations."""
        students = self._begin()
        for k, deviation in enumerate(deviations, start=1):
            students = self._advance(students, k, deviation)
        return _mean_square(students, self._aims(self.steps - 1))

    def run(self, settled: Iterable[Settled] = ()) -> Iterator[Settled]:
        """Search, and tell each deviation as it is settled; the last of each counts.

        What is found one by one is refined unless no deviation at all is better: then that is.

        Args:
            settled: what an earlier search of the same has told, to go on after.
        """
        known = {(one.sweep, one.index): one.deviation for one in settled}
        deviations = [0.0] * (self.steps - 1)
        for sweep in range(self.search.sweeps + 1):
            if sweep == 1:
                deviations = min(deviations, [0.0] * len(deviations), key=self.error)
            students = self._begin()
            for k in range(1, self.steps):
                deviation = known.get((sweep, k))
                if deviation is None:
                    last = self.steps - 1 if sweep else k
                    deviation, error = self._settle(students, k, last, deviations)
                    yield Settled(k, sweep, deviation, error)
                deviations[k - 1] = deviation
                students = self._advance(students, k, deviation)

    def _aims(self, k: int) -> list[Tensor]:
        """The teachers' latents after evaluation k."""
        return [teacher[k] for teacher in self.teachers]

    def _begin(self) -> list[_Student]:
        """Begin after the first evaluation, which there is nothing to decide about."""
        scheduler = self.make()
        scheduler.set_begin_index(0)
        start = [_Student(each.latents, copy.deepcopy(scheduler)) for each in self.images]
        return self._advance(start, 0, 0.0)

    def _settle(
        self, students: list[_Student], k: int, last: int, deviations: list[float]
    ) -> tuple[float, float]:
        """D_k that brings the latents after evaluation `last` closest, and its error."""
        aims = self._aims(last)
        tried: dict[float, float] = {}

        def error(value: float) -> float:
            deviation = round(float(value), DECIMALS) + 0.0
            if deviation not in tried:
                moved = self._advance(students, k, deviation)
                for later in range(k + 1, last + 1):
                    moved = self._advance(moved, later, deviations[later - 1])
                tried[deviation] = _mean_square(moved, aims)
            return tried[deviation]

        error(deviations[k - 1])  # what is found is no worse than what was
        minimize_scalar(
            error,
            bounds=(-1, 1),
            method="bounded",
            options={"maxiter": self.search.candidates, "xatol": 10.0**-DECIMALS},
        )
        best = min(tried, key=lambda deviation: (tried[deviation], abs(deviation)))
        return best, tried[best]

    def _advance(self, students: list[_Student], k: int, deviation: float) -> list[_Student]:
        """Each run after evaluation k, told the time that D_k leads to."""
        sigma = self.sigmas[k]
        told = desync.cond_sigmas(self.sigmas, self.sigmas.new_full((self.steps - 1,), deviation))[
            k
        ]
        moved = []
        for images, student in zip(self.images, students, strict=True):
            x = student.latents
            here = x.device
            velocity = images.velocity(
                x, self.timesteps[k].to(here), sigma.to(here), told.to(here).expand(len(x))
            )
            scheduler = copy.deepcopy(student.scheduler)
            latents = scheduler.step(velocity, self.timesteps[k], x, return_dict=False)[0]
            moved.append(replace(student, latents=latents, scheduler=scheduler))
        return moved


def _mean_square(students: list[_Student], aims: list[Tensor]) -> float:
    """The mean square of all elements of all images; infinite where one is not a number."""
    apart = [
        (student.latents.to(aim.dtype) - aim).square().double()
        for student, aim in zip(students, aims, strict=True)
    ]
    value = sum(float(each.sum()) for each in apart) / sum(each.numel() for each in apart)
    return value if math.isfinite(value) else math.inf
