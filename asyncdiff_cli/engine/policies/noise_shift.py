"""The part of NoiseShift (He et al., arXiv 2510.02307) that needs no calibration images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from asyncdiff_cli.engine.checks import check_shift
from asyncdiff_cli.engine.policies.base import StepState, ToldTime

MOST_LOG = 80.0
"""The largest |log(s^γ)| that fp32 holds on both sides."""


@dataclass(frozen=True)
class NoiseShift(ToldTime):
    """The denoiser is told the noise level that another resolution's latents seem to have.

    t*_k = s·t_k / (1 + (s − 1)·t_k), which moves log((1 − t)/t) by −log s; γ multiplies log s. A
    network trained on m tokens finds as much of an image of n of them hidden at t_k as it knows
    from t* with s = √(m/n) (SD3, Esser et al., arXiv 2403.03206, Eq. 23): above 1, and so noisier,
    for images smaller than those of its training. The sampler's grid stays.

    NoiseShift (He et al., arXiv 2510.02307) finds the same direction, and takes in place of this
    curve a table of t* per resolution and time: what denoises calibration images that were noised
    to t_k best in one step. That search takes images of the model's kind, and is not here.

    Args:
        shift: s, in [0.1, 10]; 1 is synchronous, below 1 a cleaner time is told.

    Raises:
        InputError: for a value out of its range.

    Example:
        >>> NoiseShift(1.5).to_dict()
        {'name': 'noise-shift', 'shift': 1.5}
    """

    shift: float

    name: ClassVar[str] = "noise-shift"

    def __post_init__(self) -> None:
        check_shift(self.shift)

    def cond_sigma(self, state: StepState, gamma: float, deviation: Tensor) -> Tensor:
        """t / (t + (1 − t)/s^γ) for t = t_{k+1}, shape []; t to the bit at s^γ = 1."""
        log_shift = gamma * math.log(self.shift)
        inverse = math.exp(-max(-MOST_LOG, min(MOST_LOG, log_shift)))
        return state.sigma_next / (state.sigma_next + (1 - state.sigma_next) * inverse)
