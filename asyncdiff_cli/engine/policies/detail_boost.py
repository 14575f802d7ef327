"""RES4LYF's "detail boost": the model or the sampler takes the noise for less than it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.checks import check_boost, check_range
from asyncdiff_cli.engine.limits import MAX_STEPS
from asyncdiff_cli.engine.policies.base import Described, Policy, StepState, ToldTime

MOST_ETA = 0.99


def down_time(time: Tensor, eta: float) -> Tensor:
    """t↓ = r·t/((1 − t) + r·t), r = √(1 − η²): where an ancestral step of a flow to t aims at.

    Noise of standard deviation η·t brings it back up to t. It is RES4LYF's noise mode "hard".

    Args:
        time: in [0, 1], any shape.
        eta: η in [0, 1).
    """
    residual = math.sqrt(1 - eta**2) * time
    return residual / ((1 - time) + residual)


@dataclass(frozen=True)
class _Boost(Described):
    """The settings of both ways."""

    weight: float = 1.0
    eta: float = 0.5
    start_step: int = 3
    end_step: int = 10

    def __post_init__(self) -> None:
        check_boost(self.weight)
        check_range("eta", self.eta, 0, MOST_ETA)
        for what in ("start_step", "end_step"):
            check_range(what, getattr(self, what), 0, MAX_STEPS)


@dataclass(frozen=True)
class ModelDetailBoost(_Boost, ToldTime):
    """RES4LYF's detail boost by the model: it is told the time t↓ in place of t (`down_time`).

    t*_k = t_k + γ·weight·(t↓_k − t_k), and the velocity is scaled by t*_k/t_k, since the clean
    image is made of the time that was told: Detail Daemon's rule with another curve. RES4LYF does
    this with its multistep samplers, at a weight of 1; those of several stages tell it to all but
    the first stage, so its Euler is not changed.

    D is as of `ToldTime`. Source: https://github.com/ClownsharkBatwing/RES4LYF, its node
    ClownOptions Detail Boost, method "model".

    Args:
        weight: of the lie, in [-100, 100].
        eta: η, how far t↓ is below t, in [0, 0.99].
        start_step, end_step: the first evaluation that is lied to, and the first after them.

    Raises:
        InputError: for a value out of its range.

    Example:
        >>> ModelDetailBoost(0.5).to_dict()["eta"]
        0.5
    """

    name: ClassVar[str] = "model-boost"

    def cond_sigma(self, state: StepState, gamma: float, deviation: Tensor) -> Tensor:
        """t*_{k+1}, shape []."""
        time = state.sigma_next
        if not self.start_step <= state.index + 1 < self.end_step:
            return time
        return time + gamma * self.weight * (down_time(time, self.eta) - time)

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor:
        """t*_k/t_k, [B]."""
        return cond_sigma / sigma


@dataclass(frozen=True)
class SamplerDetailBoost(_Boost):
    """RES4LYF's detail boost by the sampler, which takes the noise at its step's end for less.

    t* = t and D = 0. With w = γ·weight and t = t_{k+1}, where the step ends,

        v' = (1 − w·(t/t' − 1))·v,     t' = t + w·(t↓ − t)

    with t↓ of `down_time`: the step is shorter, and leaves noise. That is RES4LYF's rule for
    samplers of one stage. A last step to t = 0, where the rule divides 0 by 0, is left alone;
    RES4LYF ends before it. Under Heun both evaluations at a time take the factor of the step that
    begins there.

    Source: as of `ModelDetailBoost`, method "sampler".

    Args:
        weight: of the lie, in [-100, 100].
        eta: η, how far t↓ is below t, in [0, 0.99].
        start_step, end_step: the first step that is shortened, and the first after them.

    Raises:
        InputError: for a value out of its range.

    Example:
        >>> SamplerDetailBoost(0.5).to_dict()["name"]
        'sampler-boost'
    """

    name: ClassVar[str] = "sampler-boost"
    bound: ClassVar[float] = 1.0

    def __call__(self, state: StepState) -> Tensor:
        return torch.zeros(())

    def for_run(self, sigmas: Tensor, solver: str) -> Policy:
        """The same, with the times at which the steps end."""
        return _OnGrid(self.weight, self.eta, self.start_step, self.end_step, sigmas.unique())


@dataclass(frozen=True)
class _OnGrid(SamplerDetailBoost):
    """The boost in a run. Policies of one batch are equal by their settings: they share a grid."""

    times: Tensor = field(default_factory=lambda: torch.zeros(1), compare=False)
    """t_K … t_0, each once, [K + 1]."""

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor:
        """1 − w·(t/t' − 1) for the step that begins at `sigma`, [B]."""
        step = (self.times > sigma).sum()
        time = torch.where(self.times < sigma, self.times, self.times.new_zeros(())).amax()
        weight = gamma * self.weight
        misjudged = time + weight * (down_time(time, self.eta) - time)
        factor = 1 - weight * (time / misjudged.clamp(min=desync.SIGMA_MIN) - 1)
        boosted = (step >= self.start_step) & (step < self.end_step) & (time > 0)
        return torch.where(boosted, factor, torch.ones_like(factor)).expand_as(cond_sigma)
