"""A policy of its own for each image of a batch, so that several share one batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine.checks import check_gamma
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.asking import (
    ask,
    cond_sigma_of,
    for_run,
    latent_scale_of,
    velocity_scale_of,
)
from asyncdiff_cli.engine.policies.base import Policy, StepState


@dataclass(frozen=True)
class EachPolicy:
    """One policy and one γ per image of the batch.

    Neighbours with equal policies are asked together, and see nothing of the other images. So an
    image gets the times that it gets where its policy is everyone's: to the bit from the policies
    that compute each image by itself, and up to rounding from a learned module, which then runs
    on a smaller batch.

    Args:
        policies: one per image. One with a deviation per image has those of its own run of
            neighbours.
        gammas: γ per image. The γ of the call must be 1.

    Raises:
        InputError: if there is no image, their numbers differ, or a γ is not a finite number.

    Example:
        >>> policy = EachPolicy([Synchronous(), FixedDeviation(0.5)], gammas=[1.0, 2.0])
        >>> policy.to_dict()["gammas"]
        [1.0, 2.0]
    """

    policies: tuple[Policy, ...]
    gammas: tuple[float, ...]

    name: ClassVar[str] = "each"

    def __init__(self, policies: Sequence[Policy], gammas: Sequence[float]) -> None:
        if not policies or len(policies) != len(gammas):
            raise InputError(f"{len(policies)} policies with {len(gammas)} values of gamma")
        for gamma in gammas:
            check_gamma(gamma)
        object.__setattr__(self, "policies", tuple(policies))
        object.__setattr__(self, "gammas", tuple(gammas))

    @property
    def bound(self) -> float:
        """The widest of the policies'; each is held to its own."""
        return max(policy.bound for policy in self.policies)

    def for_run(self, sigmas: Tensor, solver: str) -> Policy:
        """The same of each image's policy for the run."""
        return EachPolicy([for_run(p, sigmas, solver) for p in self.policies], self.gammas)

    def __call__(self, state: StepState) -> Tensor:
        self._check(len(state.latents))
        parts = [ask(policy, state.select(images)) for policy, images in _runs(self.policies)]
        return torch.cat(parts)

    def cond_sigma(self, state: StepState, gamma: float, deviation: Tensor) -> Tensor:
        """t*_{k+1} by each image's policy and γ, [B]."""
        self._check(len(state.latents), gamma)
        parts = [
            cond_sigma_of(policy, state.select(images), policy_gamma, deviation[images])
            for (policy, policy_gamma), images in self._runs()
        ]
        return torch.cat(parts)

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor | None:
        """Each image's factor, [B]; None if no policy has one."""
        self._check(len(cond_sigma), gamma)
        return self._gathered(velocity_scale_of, torch.ones_like(cond_sigma), sigma, cond_sigma)

    def latent_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor | None:
        """Each image's multiple of its latents, [B]; None if no policy has one."""
        self._check(len(cond_sigma), gamma)
        return self._gathered(latent_scale_of, torch.zeros_like(cond_sigma), sigma, cond_sigma)

    def to_dict(self) -> dict[str, Any]:
        """A description per run of neighbours with equal policies and γ, and the runs' lengths."""
        runs = self._runs()
        return {
            "name": self.name,
            "policies": [policy.to_dict() for (policy, _), _ in runs],
            "gammas": [gamma for (_, gamma), _ in runs],
            "images": [images.stop - images.start for _, images in runs],
        }

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        """The policy that `to_dict` described, with its policies made.

        Raises:
            InputError: as the class, or for lists of different lengths.
            TypeError: if a list is missing or there is something else.
        """
        return cls._of_runs(**settings)

    @classmethod
    def _of_runs(cls, policies: list[Policy], gammas: list[float], images: list[int]) -> Self:
        if not len(policies) == len(gammas) == len(images):
            raise InputError("policy each: policies, gammas and images differ in length")
        per_image = [
            (policy, gamma)
            for policy, gamma, count in zip(policies, gammas, images, strict=True)
            for _ in range(count)
        ]
        return cls([policy for policy, _ in per_image], [gamma for _, gamma in per_image])

    def _runs(self) -> list[tuple[tuple[Policy, float], slice]]:
        return _runs(list(zip(self.policies, self.gammas, strict=True)))

    def _gathered(
        self,
        value_of: Callable[[Policy, Tensor, Tensor, float], Tensor | None],
        values: Tensor,
        sigma: Tensor,
        cond_sigma: Tensor,
    ) -> Tensor | None:
        """`values` [B] with those of the policies that have one in place; None if none has."""
        has_any = False
        for (policy, policy_gamma), images in self._runs():
            value = value_of(policy, sigma, cond_sigma[images], policy_gamma)
            if value is not None:
                values[images], has_any = value, True
        return values if has_any else None

    def _check(self, batch: int, gamma: float = 1.0) -> None:
        if batch != len(self.policies):
            raise InputError(f"{len(self.policies)} policies for {batch} images")
        if gamma != 1:
            raise InputError(
                f"each image has its own gamma in this policy: gamma must be 1, not {gamma:g}"
            )


T = TypeVar("T")


def _runs(values: Sequence[T]) -> list[tuple[T, slice]]:
    """Equal neighbours, and where they are."""
    runs = []
    start = 0
    for value, same in itertools.groupby(values):
        stop = start + len(list(same))
        runs.append((value, slice(start, stop)))
        start = stop
    return runs
