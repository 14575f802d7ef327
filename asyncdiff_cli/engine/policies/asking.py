"""What `sample` and `attach` do with a policy: ask it, make a time of its answer, scale by it."""

from __future__ import annotations

import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.deferred import is_finite, to_device
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.policies.actions import DEVIATION
from asyncdiff_cli.engine.policies.base import Policy, StepState


def for_run(policy: Policy, sigmas: Tensor, solver: str) -> Policy:
    """The policy of one run: what its `for_run` makes for the run's grid and solver, or itself.

    Args:
        sigmas: t of the run's evaluations and a last one that is not evaluated, [evaluations + 1].
        solver: its name.
    """
    fitted = getattr(policy, "for_run", None)
    return policy if fitted is None else fitted(sigmas, solver)


def decide(
    policy: Policy, gamma: float, state: StepState, sigma_max: Tensor
) -> tuple[Tensor, Tensor]:
    """Lines 8 to 10 of Algorithm 2: ask the policy, and turn its answer into a time.

    Returns:
        D_{k+1} and t*_{k+1}, fp32 [B] on the latents' device.

    Raises:
        InputError, AsyncDiffError: as `ask`.
    """
    deviation = ask(policy, state)
    cond_sigma = cond_sigma_of(policy, state, gamma, deviation)
    return deviation, desync.bounded(cond_sigma, state.sigma_next, sigma_max)


def ask(policy: Policy, state: StepState) -> Tensor:
    """D_{k+1}, fp32 [B] on the latents' device.

    Raises:
        InputError: if the policy has deviations for another number of images.
        AsyncDiffError: if it answers outside its bound, or with NaN.
    """
    batch, device = len(state.latents), state.latents.device
    deviation = policy(state)
    if deviation.ndim and len(deviation) not in (1, batch):
        raise InputError(f"the policy has {len(deviation)} deviations for {batch} images")
    within = (deviation.abs() <= policy.bound).all()  # which NaN is not
    progress, from_cpu = state.progress, deviation.device != device  # a GPU's would hold the state
    finite = torch.tensor(True) if from_cpu else is_finite(state.velocity)
    state.checks.require(within, lambda: _outside(policy.bound, deviation, finite, progress))
    return to_device(deviation.to(torch.float32), device).expand(batch)


def _outside(bound: float, deviation: Tensor, finite: Tensor, progress: str) -> AsyncDiffError:
    """Why a deviation is not within the bound: a learned policy passes NaN on.

    Args:
        finite: whether the velocity is.
    """
    if deviation.isnan().any() and not finite:
        return not_finite(progress)
    return AsyncDiffError(
        f"the policy's deviation after {progress} is outside"
        f" [-{bound:g}, {bound:g}]: {deviation.tolist()}"
    )


def cond_sigma_of(policy: Policy, state: StepState, gamma: float, deviation: Tensor) -> Tensor:
    """t*_{k+1} before it is bounded, fp32 [B]: the policy's own, or Eq. 6 for D = `deviation`."""
    chosen = getattr(policy, "cond_sigma", None)
    if chosen is None:
        eta = desync.eta(deviation, gamma)
        return desync.next_cond_sigma(state.sigma, state.sigma_next, eta)
    return chosen(state, gamma, deviation).to(deviation).expand(len(deviation))


def velocity_scale_of(
    policy: Policy, sigma: Tensor, cond_sigma: Tensor, gamma: float
) -> Tensor | None:
    """The policy's factor of the velocity, [B] or []; None for a policy that leaves it alone."""
    scale = getattr(policy, "velocity_scale", None)
    return None if scale is None else scale(sigma, cond_sigma, gamma)


def latent_scale_of(
    policy: Policy, sigma: Tensor, cond_sigma: Tensor, gamma: float
) -> Tensor | None:
    """The multiple of the latents that the policy adds, [B] or []; None if it adds none."""
    scale = getattr(policy, "latent_scale", None)
    return None if scale is None else scale(sigma, cond_sigma, gamma)


def only_deviates(policy: object) -> bool:
    """Whether times are all that a policy chooses: it leaves the velocity as it is."""
    module = getattr(policy, "tpm", None)
    if module is not None:
        return module.actions == (DEVIATION,)
    return not any(hasattr(policy, own) for own in ("velocity_scale", "latent_scale"))


def scaled(
    policy: Policy,
    gamma: float,
    latents: Tensor,
    velocity: Tensor,
    sigma: Tensor,
    cond_sigma: Tensor,
) -> Tensor:
    """The guided velocity [B, …] of an evaluation of `latents` [B, …] at t_k = `sigma` [] on
    t*_k = `cond_sigma` [B], times the policy's factor and with its multiple of the latents. Its
    dtype is kept, and where the factor is 1 and the multiple 0 every bit."""
    factor = velocity_scale_of(policy, sigma, cond_sigma, gamma)
    multiple = latent_scale_of(policy, sigma, cond_sigma, gamma)
    result = velocity
    if factor is not None:
        result = result * _per_element(factor, velocity)
    if multiple is not None:
        multiples = _per_element(multiple, velocity)
        result = torch.where(multiples == 0, result, result + multiples * latents)
    return result.to(velocity.dtype)


def _per_element(values: Tensor, images: Tensor) -> Tensor:
    """Values of the images, [B] or [], in a shape that multiplies `images` [B, …]."""
    return values.expand(len(images)).reshape(-1, *[1] * (images.ndim - 1))


def check_finite(latents: Tensor, state: StepState) -> None:
    """Have a run stopped that has gone bad, by the latents after a step.

    Raises:
        AsyncDiffError: naming the step, for NaN or infinity; on a GPU when the checks are settled.
    """
    progress = state.progress
    state.checks.require(is_finite(latents), lambda: not_finite(progress))


def not_finite(progress: str) -> AsyncDiffError:
    """What to say of a run that has gone bad.

    Args:
        progress: which step it was, as `StepState.progress`.
    """
    return AsyncDiffError(
        f"NaN or infinity in the latents after {progress}; in fp16 try bf16 or fp32, otherwise a"
        " smaller gamma or guidance"
    )
