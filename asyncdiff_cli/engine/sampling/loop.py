"""Algorithm 2 of the AsyncDiff paper as a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.adapters import Adapter, Guidance, TextConditions
from asyncdiff_cli.engine.backbones.schedulers import scheduler_name
from asyncdiff_cli.engine.deferred import DeferredChecks
from asyncdiff_cli.engine.policies.asking import check_finite, decide, for_run, scaled
from asyncdiff_cli.engine.policies.base import Policy, StepState

Velocity = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(latents, timestep [], sigma [], cond_sigma [B]) to the guided velocity."""


def integrate(
    velocity: Velocity,
    scheduler: Any,
    latents: Tensor,
    policy: Policy,
    gamma: float,
    text: TextConditions,
    on_step: Callable[[StepState], None] | None = None,
    token_grid: tuple[int, int] | None = None,
    first: Velocity | None = None,
    firsts: int = 1,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Algorithm 2: the update follows the scheduler's grid, the denoiser is told the policy's time.

    Args:
        velocity: the guided velocity field.
        scheduler: a diffusers flow scheduler whose timesteps are set.
        latents: noise at t_0, [B, …].
        text: the positive branch's conditions, for the policy.
        on_step: called after each evaluation with its state.
        token_grid: rows and columns of packed latents, for the policy.
        first: the velocity field of the first evaluations, where it is another, as of `shared`.
        firsts: how many these are.

    Returns:
        The latents at t = 0, t* of each evaluation, and D of each but the first, each [B].
    """
    scheduler.set_begin_index(0)
    steps, timesteps = len(scheduler.timesteps), scheduler.timesteps
    sigmas = scheduler.sigmas.to(latents.device)
    if sigmas[-1] > 0:  # the grid stops early: one more evaluation, and an Euler step to 0
        timesteps = torch.cat([timesteps, (desync.TIMESTEPS * sigmas[-1:]).to(timesteps)])
        sigmas = torch.cat([sigmas, torch.zeros_like(sigmas[-1:])])
    policy = for_run(policy, sigmas, scheduler_name(scheduler))
    cond_sigma = sigmas[0].expand(len(latents))  # line 2: t*_0 = t_0
    cond_sigmas, deviations, checks = [cond_sigma], [], DeferredChecks()
    embeds, mask = (text.prompt_embeds, text.pooled), text.prompt_embeds_mask

    for k, t in enumerate(timesteps):
        evaluate = first if first is not None and k < firsts else velocity
        v = evaluate(latents, t, sigmas[k], cond_sigma)  # lines 4 to 6
        v = scaled(policy, gamma, latents, v, sigmas[k], cond_sigma)  # Eq. 19, where a policy does
        times = sigmas[k], sigmas[k + 1], cond_sigma
        state = StepState(k, len(timesteps), *times, latents, v, *embeds, token_grid, mask, checks)
        if k + 1 < len(timesteps):  # lines 8 to 10
            deviation, cond_sigma = decide(policy, gamma, state, sigmas[0])
            cond_sigmas.append(cond_sigma)
            deviations.append(deviation)
        if k < steps:  # line 11
            latents = scheduler.step(v, t, latents, return_dict=False)[0]
        else:  # line 13
            latents = state.clean.to(latents.dtype)
        check_finite(latents, state)
        if on_step is not None:
            on_step(state)
    checks.settle()
    return latents, cond_sigmas, deviations


@contextmanager
def denoising(
    adapter: Adapter,
) -> Iterator[Callable[[TextConditions, Guidance, int, int], Velocity]]:
    """Give the velocity fields of a model, by text, guidance, height and width in pixels.

    Within the block the model is told the times that a field is asked for.
    """
    with adapter.conditioning_time() as time:

        def field(text: TextConditions, guidance: Guidance, height: int, width: int) -> Velocity:
            denoise = adapter.denoiser(text, guidance, height, width)

            def velocity(
                latents: Tensor, timestep: Tensor, sigma: Tensor, cond_sigma: Tensor
            ) -> Tensor:
                time.set(sigma, cond_sigma)
                return denoise(latents, timestep)

            return velocity

        yield field
