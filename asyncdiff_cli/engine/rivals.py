"""Policies beside the paper's: what users have today, prior art, and scaling the velocity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from asyncdiff_cli.engine.checks import (
    check_amount,
    check_deviation,
    check_range,
    check_scale,
    check_window,
)
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies import Described, StepState

RESOLUTION = 1e-6
"""Relative differences of variances that fp32 does not tell from its own rounding."""


@dataclass(frozen=True)
class DetailDaemon(Described):
    """The rule of Detail Daemon, a "lying sigma", on a flow model.

    The denoiser is conditioned on t*_k = t_k·(1 − γ·a_k), and its velocity is scaled by t*_k/t_k:
    ComfyUI's node makes the clean image x − t*·v of the time that it tells, and the sampler then
    divides the way to it by its own t. So it is not `FixedDeviation` with other numbers.

    a_k rises from 0 at `start` to `amount` and falls to 0 at `end`, in shares of the evaluations
    k = 0 … N − 1, and is 0 outside. The first evaluation is conditioned on t_0 whatever a_0 is
    (Algorithm 2, line 2). The node looks a up by t, so that under Heun the two evaluations at one
    time share it; here they are two of the N.

    D is what would lead to the same time by Eq. 6 at γ = 1, and 0 where Heun repeats a time. It
    may exceed 1: late intervals are short beside their times.

    Source: https://github.com/muerrilla/sd-webui-detail-daemon and, for the velocity,
    https://github.com/Jonseed/ComfyUI-Detail-Daemon.

    Args:
        amount: the largest a_k, in [-1, 1]. The node multiplies its `detail_amount` by 0.1 and by
            the guidance scale: `amount` is 0.1·detail_amount·cfg.
        start, end: where a_k leaves and meets 0, 0 ≤ start ≤ end ≤ 1.
        bias: where between them it is largest, in [0, 1].
        exponent: of the rise and the fall, in [0, 10]; above 1 they are steeper at the top.
        smooth: half a cosine for the rise and the fall in place of a straight line.

    Raises:
        InputError: for a value out of its range.
    """

    amount: float = 0.1
    start: float = 0.2
    end: float = 0.8
    bias: float = 0.5
    exponent: float = 1.0
    smooth: bool = True

    name: ClassVar[str] = "detail-daemon"
    bound: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        check_amount(self.amount)
        for what in ("start", "end", "bias"):
            check_range(what, getattr(self, what), 0, 1)
        check_range("exponent", self.exponent, 0, 10)
        if self.start > self.end:
            raise InputError(f"start {self.start:g} is after end {self.end:g}")

    def schedule(self, evaluations: int) -> list[float]:
        """a_k of each of so many evaluations."""
        mid = self.start + self.bias * (self.end - self.start)
        first, peak, last = (round(x * (evaluations - 1)) for x in (self.start, mid, self.end))
        shares = np.zeros(evaluations)
        shares[first : peak + 1] = self._shaped(np.linspace(0, 1, peak - first + 1))
        shares[peak : last + 1] = self._shaped(np.linspace(1, 0, last - peak + 1))
        return (self.amount * shares).tolist()

    def _shaped(self, u: np.ndarray) -> np.ndarray:
        return (0.5 * (1 - np.cos(np.pi * u)) if self.smooth else u) ** self.exponent

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


class _Scaled(Described):
    """A policy with ω, `scale`."""

    scale: float

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor:
        """1 + γ·(ω − 1), [B]."""
        return torch.full_like(cond_sigma, 1 + gamma * (self.scale - 1))


@dataclass(frozen=True)
class VelocityScale(_Scaled):
    """The paper's alternative (section 5): t* = t, and every step is ω times as long (Eq. 19).

    Below 1 it leaves noise for image, as a positive deviation does. All evaluations are scaled,
    also the first.

    Args:
        scale: ω in [0.5, 1.5] (Eq. 20), which γ scales to 1 + γ·(ω − 1).

    Raises:
        InputError: for a value out of its range.
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


@dataclass(frozen=True)
class TimeShift(Described):
    """The Time-Shift Sampler (Li et al., arXiv 2305.15583), carried over to flow matching.

    Training-free: each image is conditioned on the time whose noise level is that of its latent,
    told by the variance over all elements of the image. The latent of evaluation k + 1 is not
    known yet, so it is predicted by a step of Euler, x_k + (t_{k+1} − t_k)·v_k. At time t a latent
    (1 − t)·x0 + t·ε has the variance (1 − t)²·Var(x0) + t², where the image's own clean estimate
    stands for x0. Where the original searches the timesteps of a
    window, this one solves for the time.

    Guidance gives the clean estimates of early steps a far larger variance than images have. There
    t* follows the guidance more than the noise.

    Args:
        window: how far t* may be from t_{k+1}, in intervals, so D is in [-window, window];
            in [0, 1].

    Raises:
        InputError: for a value out of its range.
    """

    window: float = 0.5

    name: ClassVar[str] = "time-shift"

    def __post_init__(self) -> None:
        check_window(self.window)

    @property
    def bound(self) -> float:
        return self.window

    def __call__(self, state: StepState) -> Tensor:
        now, synchronous = state.sigma.double(), state.sigma_next.double()
        predicted = state.latents.float() + (
            (state.sigma_next - state.sigma) * state.velocity.float()
        )
        reach = self.window * (now - synchronous)
        time = matching_time(
            _variances(predicted),
            _variances(state.clean),
            synchronous,
            (synchronous - reach, synchronous + reach),
        )
        deviation = (synchronous - time) / (now - synchronous)
        deviation = torch.where(now > synchronous, deviation, torch.zeros_like(deviation))
        return deviation.clamp(-self.window, self.window).float()


def matching_time(
    measured: Tensor, clean: Tensor, synchronous: Tensor, window: tuple[Tensor, Tensor]
) -> Tensor:
    """The time t of the window at which (1 − t)²·`clean` + t² is nearest to `measured`.

    The modelled variance is a parabola in t with its least value at clean/(1 + clean), so that two
    times may fit and, for a measured variance below the least value, none. In closed form: the
    nearest is one of the two roots (or the place of the least value) moved into the window. Of
    times that fit equally well, up to rounding, it is the one nearest to `synchronous`.

    Args:
        measured, clean: variances of the latent and of the clean image, fp64 [B].
        synchronous: t_{k+1}, fp64 [], in the window.
        window: its ends, fp64 [] each, the cleaner one first.

    Returns:
        fp64 [B].
    """
    least = clean / (1 + clean)
    apart = (measured * (1 + clean) - clean).clamp(min=0).sqrt() / (1 + clean)
    times = torch.stack([synchronous.expand_as(least), least - apart, least + apart]).clamp(*window)
    misfit = ((1 - times) ** 2 * clean + times**2 - measured).abs()
    fits = misfit <= misfit.amin(0) + RESOLUTION * measured
    distance = torch.where(fits, (times - synchronous).abs(), math.inf)
    return times.gather(0, distance.argmin(0, keepdim=True))[0]


def _variances(images: Tensor) -> Tensor:
    """Over all elements of each image, fp64 [B].

    One image at a time: sums of a batch may be rounded by its size, and an image's time must not
    depend on its neighbours.
    """
    return torch.stack([image.var(correction=0) for image in images]).double()
