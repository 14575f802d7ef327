"""Epsilon scaling (Ning et al., arXiv 2308.15321) on a flow model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from asyncdiff_cli.engine.checks import check_number, check_scale
from asyncdiff_cli.engine.policies.base import Described, StepState

LATEST_NOISE = 80 / 81
"""t of σ = 80, where EDM's samplers begin, which the method was tried with."""


@dataclass(frozen=True)
class EpsilonScaling(Described):
    """Epsilon scaling (Ning et al., arXiv 2308.15321): the predicted noise is divided by λ.

    A flow's velocity says ε̂ = x + (1 − t)·v. With ε̂/λ in its place the velocity of the same x is

        v' = (ε̂/λ − x)/(1 − t) = v/λ − (1 − 1/λ)/(1 − t)·x,     λ(t) = scale + slope·t,

    which moves x̂0 = x − t·v' too, as the original does; γ multiplies 1 − 1/λ. Above 1 every step
    takes away less noise. Times stay as they are: t* = t and D = 0.

    v' is infinite at t = 1, where a flow begins and ε̂ is x whatever the network says. Samplers of
    the original begin at σ = 80 at most; so evaluations at t > 80/81 are left alone.

    ComfyUI's node "Epsilon Scaling" divides x − x̂0 by λ, which in a flow is all of t·v:
    `VelocityScale(1/λ)` does that.

    Args:
        scale: λ at t = 0, in [0.5, 1.5]. The original's are 1.004 to 1.017 at 100 steps.
        slope: what λ gains from t = 0 to 1, where it is in [0.5, 1.5] too.

    Raises:
        InputError: for a value out of its range.

    Example:
        >>> EpsilonScaling(1.01).to_dict()
        {'name': 'epsilon-scaling', 'scale': 1.01, 'slope': 0.0}
    """

    scale: float = 1.005
    slope: float = 0.0

    name: ClassVar[str] = "epsilon-scaling"
    bound: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)
        check_number("slope", self.slope)
        check_scale(self.scale + self.slope)

    def __call__(self, state: StepState) -> Tensor:
        return torch.zeros(())

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor:
        """1 − γ·(1 − 1/λ), [B]."""
        return (1 - self._taken(sigma, gamma)).expand_as(cond_sigma)

    def latent_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor:
        """−γ·(1 − 1/λ)/(1 − t), [B]."""
        noisier = (1 - sigma).clamp(min=1 - LATEST_NOISE)  # above, 0 is divided by it
        return (-self._taken(sigma, gamma) / noisier).expand_as(cond_sigma)

    def _taken(self, sigma: Tensor, gamma: float) -> Tensor:
        """The share of ε̂ that is taken off, []."""
        taken = gamma * (1 - 1 / (self.scale + self.slope * sigma))
        return torch.where(sigma > LATEST_NOISE, torch.zeros_like(taken), taken)
