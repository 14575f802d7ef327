"""A policy whose velocity scales are kept: deviations are in the result, scales are not."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from asyncdiff_cli.engine.policies.asking import for_run, velocity_scale_of
from asyncdiff_cli.engine.policies.base import Policy, StepState


class WatchedScales:
    """A policy that keeps the factors of the velocity of the evaluations that have one.

    Args:
        policy: one that chooses no times itself, and adds no latents.
        scales: what the factors are appended to, [B] an evaluation.
    """

    def __init__(self, policy: Policy, scales: list[Tensor]) -> None:
        self.policy, self.scales = policy, scales

    @property
    def bound(self) -> float:
        """The policy's bound."""
        return self.policy.bound

    def for_run(self, sigmas: Tensor, solver: str) -> WatchedScales:
        """The same of the policy for a run."""
        return WatchedScales(for_run(self.policy, sigmas, solver), self.scales)

    def __call__(self, state: StepState) -> Tensor:
        return self.policy(state)

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor | None:
        """The policy's factor."""
        scale = velocity_scale_of(self.policy, sigma, cond_sigma, gamma)
        if scale is not None:
            self.scales.append(scale)
        return scale

    def to_dict(self) -> dict[str, Any]:
        """Name and settings of the policy."""
        return self.policy.to_dict()
