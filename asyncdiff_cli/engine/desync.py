"""The arithmetic of asynchronous conditioning (AsyncDiff, Eq. 6 and 9-13), as pure functions.

Times are flow-matching times in [0, 1]: 1 is noise, 0 is the image. `sigma` and `sigma_next` are
two neighbours of the integrator's grid, `scheduler.sigmas[k]` and `scheduler.sigmas[k + 1]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)
"""A number or numbers."""

SIGMA_MIN = 1e-3
"""The cleanest time that the denoiser is ever conditioned on (Algorithm 2, line 10)."""

TIMESTEPS = 1000
"""Timesteps of a diffusers flow model per unit of time."""


def deviation_from_ratio(ratio: Tensor, bound: float) -> Tensor:
    """D = 2·bound·(r − 0.5): Eq. 11 for `bound` 0.5, Eq. 13 for 1. `ratio` in [0, 1], any shape."""
    return 2 * bound * (ratio - 0.5)


def ratio_from_deviation(deviation: Tensor, bound: float) -> Tensor:
    """r = D / (2·bound) + 0.5, the inverse of `deviation_from_ratio`; any shape."""
    return deviation / (2 * bound) + 0.5


def scale_from_ratio(ratio: Tensor) -> Tensor:
    """ω = 0.5 + r (Eq. 20), the factor of the velocity. `ratio` in [0, 1], any shape."""
    return 0.5 + ratio


def ratio_from_scale(scale: Tensor) -> Tensor:
    """r = ω − 0.5, the inverse of `scale_from_ratio`; any shape."""
    return scale - 0.5


def eta(deviation: Tensor, gamma: float) -> Tensor:
    """η = 1 + γ·D, the factor of the grid's interval (Eq. 10, 12); any shape."""
    return 1 + gamma * deviation


def scale_factor(scale: Number, gamma: float) -> Number:
    """1 + γ·(ω − 1), what the velocity is multiplied by for ω = `scale`; any shape."""
    return 1 + gamma * (scale - 1)


def next_cond_sigma(sigma: Tensor, sigma_next: Tensor, eta: Tensor) -> Tensor:
    """t*_{k+1} = t_k + η·(t_{k+1} − t_k) (Eq. 6), before it is `bounded`.

    Args:
        sigma, sigma_next: t_k and t_{k+1}, each of shape [].
        eta: [B], one factor per image. Where it is 1, the answer is `sigma_next` to the bit.

    Returns:
        [B].
    """
    return torch.where(eta == 1, sigma_next, sigma + eta * (sigma_next - sigma))


def deviation_to(cond_sigma: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """D that Eq. 6 makes t*_{k+1} = `cond_sigma` of at γ = 1, and 0 where t_{k+1} is t_k.

    Args:
        cond_sigma: t*_{k+1}, [B] or [].
        sigma, sigma_next: t_k and t_{k+1}, each of shape [].
    """
    interval = sigma - sigma_next
    deviation = (sigma_next - cond_sigma) / interval
    return torch.where(interval > 0, deviation, torch.zeros_like(deviation))


def bounded(cond_sigma: Tensor, sigma_next: Tensor, sigma_max: Tensor) -> Tensor:
    """clamp(t*_{k+1}, σ_min, t_0) (Algorithm 2, line 10).

    Args:
        cond_sigma: t*_{k+1}, [B]. Where it is `sigma_next`, it stays that to the bit.
        sigma_next, sigma_max: t_{k+1} and t_0, each of shape [].

    Returns:
        [B], in [min(σ_min, t_{k+1}), t_0].
    """
    inside = cond_sigma.clamp(min=SIGMA_MIN).minimum(sigma_max)
    return torch.where(cond_sigma == sigma_next, sigma_next, inside)


def cond_sigmas(sigmas: Tensor, deviations: Tensor, gamma: float = 1.0) -> Tensor:
    """t* of each evaluation of a run, by the deviations of all but the first (Eq. 6).

    Args:
        sigmas: t_0 … t_K, [K + 1].
        deviations: D_1 … D_{K−1}, [K − 1].

    Returns:
        [K]; t_0 first, and the grid's time to the bit where γ·D is 0.
    """
    sigma, sigma_next = sigmas[:-2], sigmas[1:-1]
    told = next_cond_sigma(sigma, sigma_next, eta(deviations, gamma))
    return torch.cat([sigmas[:1], bounded(told, sigma_next, sigmas[0])])


def clean_estimate(latents: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """x̂0 = x − t·v, in fp32 (Algorithm 2, line 7). `latents` and `velocity` share a shape."""
    return latents.float() - sigma * velocity.float()


def in_timesteps(sigma: Tensor) -> Tensor:
    """1000·t, the units in which most diffusers models embed a time."""
    return TIMESTEPS * sigma


def model_timestep(
    timestep: Tensor,
    sigma: Tensor,
    cond_sigma: Tensor,
    model_time: Callable[[Tensor], Tensor] = in_timesteps,
) -> Tensor:
    """The timesteps that make a model see t* where t* differs from the grid's time.

    Elsewhere it is the scheduler's own `timestep`, which some schedulers round to integers, so
    that a synchronous image is conditioned exactly as without this project.

    Args:
        timestep: the model's own timesteps for this evaluation, [n].
        sigma: t_k, shape [].
        cond_sigma: t*_k, [B]; n is B, or 2·B for classifier-free guidance in one call, in which
            case both halves see the same times.
        model_time: t* in the model's own units.

    Returns:
        [n], fp32.
    """
    cond_sigma = cond_sigma.repeat(len(timestep) // len(cond_sigma))
    return torch.where(cond_sigma == sigma, timestep.float(), model_time(cond_sigma))
