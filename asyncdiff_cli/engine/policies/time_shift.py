"""The Time-Shift Sampler (Li et al., arXiv 2305.15583) on a flow model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from asyncdiff_cli.engine.checks import check_window
from asyncdiff_cli.engine.policies.base import Described, StepState

RESOLUTION = 1e-6
"""Relative differences of variances that fp32 does not tell from its own rounding."""


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

    Example:
        >>> TimeShift(0.25).bound
        0.25
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
    """Variance over all elements of each image, fp64 [B].

    One image at a time: sums of a batch may be rounded by its size, and an image's time must not
    depend on its neighbours.
    """
    return torch.stack([image.var(correction=0) for image in images]).double()
