"""The paper's alternative: steps that are longer or shorter than the grid's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.checks import check_deviation, check_scale
from asyncdiff_cli.engine.policies.base import Described, StepState


class _Scaled(Described):
    """A policy with ω, `scale`."""

    scale: float

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor:
        """1 + γ·(ω − 1), [B]."""
        return torch.full_like(cond_sigma, desync.scale_factor(self.scale, gamma))


@dataclass(frozen=True)
class VelocityScale(_Scaled):
    """The paper's alternative (section 5): t* = t, and every step is ω times as long (Eq. 19).

    Below 1 it leaves noise for image, as a positive deviation does. All evaluations are scaled,
    also the first.

    Args:
        scale: ω in [0.5, 1.5] (Eq. 20), which γ scales to 1 + γ·(ω − 1).

    Raises:
        InputError: for a value out of its range.

    Example:
        >>> import torch
        >>> VelocityScale(0.9).velocity_scale(torch.ones(()), torch.ones(1), gamma=2.0)
        tensor([0.8000])
    """

    scale: float

    name: ClassVar[str] = "velocity-scale"
    bound: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, state: StepState) -> Tensor:
        return torch.zeros(())


@dataclass(frozen=True)
class Combined(_Scaled):
    """A constant deviation and a constant ω at once, which the paper leaves to future work.

    Args:
        deviation: D in [-1, 1], as in `FixedDeviation`.
        scale: ω in [0.5, 1.5], as in `VelocityScale`.

    Raises:
        InputError: for a value out of its range.

    Example:
        >>> Combined(0.5, 0.9).to_dict()
        {'name': 'combined', 'deviation': 0.5, 'scale': 0.9}
    """

    deviation: float
    scale: float

    name: ClassVar[str] = "combined"
    bound: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_deviation(self.deviation)
        check_scale(self.scale)

    def __call__(self, state: StepState) -> Tensor:
        return torch.tensor(self.deviation)
