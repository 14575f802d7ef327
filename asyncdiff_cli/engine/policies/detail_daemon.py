"""What users have today: Detail Daemon's rule, a "lying sigma"."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from asyncdiff_cli.engine.checks import check_amount, check_range
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.base import Described, StepState


@dataclass(frozen=True)
class DetailDaemon(Described):
    """The rule of Detail Daemon, a "lying sigma", on a flow model.

    The denoiser is conditioned on t*_k = t_k·(1 − γ·a_k), and its velocity is scaled by t*_k/t_k:
    ComfyUI's node makes the clean image x − t*·v of the time that it tells, and the sampler then
    divides the way to it by its own t. So it is not `FixedDeviation` with other numbers.

    a_k rises from `start_offset` at `start` to `amount` and falls to `end_offset` at `end`, in
    shares of the evaluations k = 0 … N − 1. Before and after it stays at the offsets, and all of it
    is multiplied by 1 − `fade`. The first evaluation is conditioned on t_0 whatever a_0 is
    (Algorithm 2, line 2). The node looks a up by t, so that under Heun the two evaluations at one
    time share it; here they are two of the N.

    Of the extension's modes this is `both`. `cond` and `uncond` lie to one branch of the guidance
    alone, which takes two times in one evaluation, and there is one t* here. A model whose guidance
    is embedded has one branch: `cond` is then `both` at a CFG scale of 1.

    D is what would lead to the same time by Eq. 6 at γ = 1, and 0 where Heun repeats a time. It
    may exceed 1: late intervals are short beside their times.

    Source: https://github.com/muerrilla/sd-webui-detail-daemon and, for the velocity,
    https://github.com/Jonseed/ComfyUI-Detail-Daemon.

    Args:
        amount: a_k at its peak, in [-1, 1]. The node multiplies its `detail_amount` and offsets by
            0.1 and by the guidance scale: `amount` is 0.1·detail_amount·cfg.
        start, end: where a_k leaves and meets the offsets, 0 ≤ start ≤ end ≤ 1.
        bias: where between them its peak is, in [0, 1].
        exponent: of the rise and the fall, in [0, 10]; above 1 they are steeper at the top.
        smooth: half a cosine for the rise and the fall in place of a straight line.
        start_offset, end_offset: a_k before `start` and after `end`, in [-1, 1].
        fade: what share of all a_k is taken off, in [0, 1].

    Raises:
        InputError: for a value out of its range.

    Example:
        >>> policy = DetailDaemon(0.2, start=0.0, end=1.0)
        >>> policy.to_dict()["amount"]
        0.2
    """

    amount: float = 0.1
    start: float = 0.2
    end: float = 0.8
    bias: float = 0.5
    exponent: float = 1.0
    smooth: bool = True
    start_offset: float = 0.0
    end_offset: float = 0.0
    fade: float = 0.0

    name: ClassVar[str] = "detail-daemon"
    bound: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        check_amount(self.amount)
        for what in ("start", "end", "bias"):
            check_range(what, getattr(self, what), 0, 1)
        check_range("exponent", self.exponent, 0, 10)
        for what in ("start_offset", "end_offset"):
            check_range(what, getattr(self, what), -1, 1)
        check_range("fade", self.fade, 0, 1)
        if self.start > self.end:
            raise InputError(f"start {self.start:g} is after end {self.end:g}")

    def schedule(self, evaluations: int) -> list[float]:
        """a_k of each of so many evaluations."""
        mid = self.start + self.bias * (self.end - self.start)
        first, peak, last = (round(x * (evaluations - 1)) for x in (self.start, mid, self.end))
        rise, fall = np.linspace(0, 1, peak - first + 1), np.linspace(1, 0, last - peak + 1)
        amounts = np.full(evaluations, float(self.start_offset))
        amounts[first : peak + 1] = self._between(self.start_offset, rise)
        amounts[peak : last + 1] = self._between(self.end_offset, fall)
        amounts[last + 1 :] = self.end_offset
        return (amounts * (1 - self.fade)).tolist()

    def _between(self, offset: float, u: np.ndarray) -> np.ndarray:
        """The way from an offset, at u = 0, to the amount, at 1."""
        share = (0.5 * (1 - np.cos(np.pi * u)) if self.smooth else u) ** self.exponent
        return offset + (self.amount - offset) * share

    def _next(self, state: StepState) -> float:
        return self.schedule(state.num_evaluations)[state.index + 1]

    def __call__(self, state: StepState) -> Tensor:
        interval = state.sigma - state.sigma_next
        deviation = self._next(state) * state.sigma_next / interval
        return torch.where(interval > 0, deviation, torch.zeros_like(deviation))

    def cond_sigma(self, state: StepState, gamma: float, deviation: Tensor) -> Tensor:
        """t*_{k+1} = t_{k+1}·(1 − γ·a_{k+1}), shape []."""
        return state.sigma_next * (1 - gamma * self._next(state))

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor:
        """t*_k/t_k, [B]."""
        return cond_sigma / sigma
