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
from asyncdiff_cli.engine.policies.asking import not_finite
from asyncdiff_cli.engine.policies.observation import unpacked
from asyncdiff_cli.engine.policies.spectra import Spectrum
from asyncdiff_cli.engine.sampling.loop import Velocity
from asyncdiff_cli.engine.schedules.search import Search

DECIMALS = 3
"""Decimals of a deviation, far below what can be seen."""


@dataclass(frozen=True)
class Images:
    """Images that are drawn together."""

    velocity: Velocity
    latents: Tensor
    """Noise at t_0, [B, …]."""
    token_grid: tuple[int, int] | None = None
    """Rows and columns of packed latents."""


@dataclass(frozen=True)
class Settled:
    """A deviation that was decided on."""

    index: int
    """The evaluation that it is for, from 1."""
    sweep: int
    """0 while they are found one by one."""
    deviation: float
    error: float
    """What the next latents lack to the teacher's by the objective, in a sweep the last ones."""

    @property
    def line(self) -> str:
        """What to say of it."""
        how = f"refined in sweep {self.sweep}" if self.sweep else "found"
        return f"D_{self.index} = {self.deviation:g}, {how}: error {self.error:.4g}"


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
        aims: what the last latents are to come close to, of each batch; default the teacher's.

    Raises:
        InputError: for a scheduler that evaluates twice a step, or whose grid ends above 0.
    """

    def __init__(
        self,
        images: Sequence[Images],
        make: Callable[[], Any],
        search: Search | None = None,
        aims: list[Tensor] | None = None,
    ) -> None:
        self.images, self.make, self.search = images, make, search or Search()
        scheduler = make()
        self.sigmas, self.timesteps = scheduler.sigmas, scheduler.timesteps
        self.steps, self.aims = len(self.timesteps), aims
        if len(self.sigmas.unique()) != self.steps + 1 or self.sigmas[-1] != 0:
            raise InputError("a calibration needs one evaluation a step, and a grid that ends at 0")

    @cached_property
    def teachers(self) -> list[list[Tensor]]:
        """The `teach` of each batch."""
        return [teach(each, self.sigmas.tolist(), self.search.split) for each in self.images]

    @property
    def synchronous(self) -> tuple[float, ...]:
        """No deviation at all."""
        return (0.0,) * (self.steps - 1)

    def drawn(self, deviations: Sequence[float]) -> list[Tensor]:
        """The last latents of each batch, with such deviations."""
        students = self._begin()
        for k, deviation in enumerate(deviations, start=1):
            students = self._advance(students, k, deviation)
        return [student.latents for student in students]

    def error(self, deviations: Sequence[float]) -> float:
        """What the last latents lack to the aims by the objective, with such deviations."""
        return self._lack(self.drawn(deviations), self._aims(self.steps - 1))

    def distances(self, latents: Sequence[Tensor]) -> list[float]:
        """Mean square of what each image's last latents, given by batch, lack to the aims.

        Raises:
            AsyncDiffError: if one is no number.
        """
        pairs = zip(latents, self._aims(self.steps - 1), strict=True)
        apart = torch.cat([_squares(own, aim).flatten(1).mean(1).cpu() for own, aim in pairs])
        if not apart.isfinite().all():
            raise not_finite(f"step {self.steps} of {self.steps}")
        return apart.tolist()

    def spectral_error(self, latents: Sequence[Tensor]) -> float:
        """Mean squared error of how much there is at each radial frequency, of all images at once.

        Args:
            latents: the last ones, by batch; [B, C, H, W], or packed.
        """
        return self._spectral_lack(latents, self._aims(self.steps - 1))

    def run(self, settled: Iterable[Settled] = ()) -> Iterator[Settled]:
        """Search, and tell each deviation as it is settled; the last of each counts.

        What is found one by one is refined unless no deviation at all is better: then that is.

        Args:
            settled: what an earlier search of the same has told, to go on after.
        """
        settled, found = list(settled), [*self.synchronous]
        yield from self._sweep(0, found, settled)
        if self.search.sweeps:
            yield from self.refine([found, self.synchronous], settled)

    def refine(
        self, starts: Sequence[Sequence[float]], settled: Iterable[Settled] = ()
    ) -> Iterator[Settled]:
        """Refine the best of some schedules on the last latents, and tell as `run` does.

        Args:
            starts: each K − 1 deviations.
            settled: as of `run`.
        """
        settled = list(settled)
        deviations = [*self.best(starts)]
        for sweep in range(1, self.search.sweeps + 1):
            yield from self._sweep(sweep, deviations, settled)

    def best(self, schedules: Sequence[Sequence[float]]) -> tuple[float, ...]:
        """The one that brings the last latents closest, the first of equal ones."""
        errors = [self.error(deviations) for deviations in schedules]
        return tuple(schedules[errors.index(min(errors))])

    def constant(self) -> float:
        """The one deviation for all evaluations that brings the last latents closest."""
        decisions = self.steps - 1
        return _least(lambda value: self.error([value] * decisions), 0.0, self.search.candidates)[0]

    def _sweep(
        self, sweep: int, deviations: list[float], settled: Sequence[Settled]
    ) -> Iterator[Settled]:
        """Settle all deviations once, in place, but for those that are settled already."""
        known = {one.index: one.deviation for one in settled if one.sweep == sweep}
        students = self._begin()
        for k in range(1, self.steps):
            if k not in known:
                last = self.steps - 1 if sweep else k
                known[k], error = self._settle(students, k, last, deviations)
                yield Settled(k, sweep, known[k], error)
            deviations[k - 1] = known[k]
            students = self._advance(students, k, known[k])

    def _aims(self, k: int) -> list[Tensor]:
        """What the latents after evaluation k are to come close to, of each batch."""
        if self.aims is not None and k == self.steps - 1:
            return self.aims
        return [teacher[k] for teacher in self.teachers]

    def _lack(self, latents: Sequence[Tensor], aims: Sequence[Tensor]) -> float:
        """What latents lack to aims by the objective; infinite where one is not a number."""
        if not all(own.isfinite().all() for own in latents):
            return math.inf
        if self.search.objective == "spectrum":
            return self._spectral_lack(latents, aims)
        return _mean_square(latents, aims)

    def _spectral_lack(self, latents: Sequence[Tensor], aims: Sequence[Tensor]) -> float:
        own, aim = (
            Spectrum.of_latents(
                torch.cat(
                    [unpacked(x, i.token_grid) for x, i in zip(each, self.images, strict=True)]
                )
            )
            for each in (latents, aims)
        )
        return float(aim.error(own.std))

    def _begin(self) -> list[_Student]:
        """Begin after the first evaluation, which there is nothing to decide about."""
        scheduler = self.make()
        scheduler.set_begin_index(0)
        start = [_Student(each.latents, copy.deepcopy(scheduler)) for each in self.images]
        return self._advance(start, 0, 0.0)

    def _settle(
        self, students: list[_Student], k: int, last: int, deviations: list[float]
    ) -> tuple[float, float]:
        """D_k that brings the latents after evaluation `last` closest, and its error.

        Raises:
            AsyncDiffError: if they are no numbers with any.
        """
        aims = self._aims(last)

        def error(deviation: float) -> float:
            moved = self._advance(students, k, deviation)
            for later in range(k + 1, last + 1):
                moved = self._advance(moved, later, deviations[later - 1])
            return self._lack([student.latents for student in moved], aims)

        best, least = _least(error, deviations[k - 1], self.search.candidates)
        if math.isinf(least):
            raise not_finite(f"step {last + 1} of {self.steps}")
        return best, least

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


def _least(error: Callable[[float], float], start: float, candidates: int) -> tuple[float, float]:
    """The deviation of least error that a short line search over [−1, 1] meets, and its error.

    Args:
        start: tried too, so that what is found is no worse.
        candidates: how many more are tried at most.
    """
    tried: dict[float, float] = {}

    def tell(value: float) -> float:
        deviation = round(float(value), DECIMALS) + 0.0  # a zero without its sign
        if deviation not in tried:
            tried[deviation] = error(deviation)
        return tried[deviation]

    tell(start)
    minimize_scalar(
        tell,
        bounds=(-1, 1),
        method="bounded",
        options={"maxiter": candidates, "xatol": 10.0**-DECIMALS},
    )
    best = min(tried, key=lambda deviation: tried[deviation])  # the start, if none is better
    return best, tried[best]


def _squares(latents: Tensor, aim: Tensor) -> Tensor:
    """What latents lack to an aim, squared, fp64 [B, …]."""
    return (latents.to(aim.dtype) - aim).square().double()


def _mean_square(latents: Sequence[Tensor], aims: Sequence[Tensor]) -> float:
    """The mean square of all elements of all images."""
    apart = [_squares(own, aim) for own, aim in zip(latents, aims, strict=True)]
    return sum(float(each.sum()) for each in apart) / sum(each.numel() for each in apart)
