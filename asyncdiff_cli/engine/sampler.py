"""Asynchronous sampling: Algorithm 2 of the AsyncDiff paper as a loop, and the call around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine import checks, desync
from asyncdiff_cli.engine.adapters import ConditioningTime, Guidance
from asyncdiff_cli.engine.backbones import Backbone
from asyncdiff_cli.engine.decisions import check_finite, decide, scaled
from asyncdiff_cli.engine.policies import Policy, StepState, Synchronous

Velocity = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(latents, timestep [], sigma [], cond_sigma [B]) to the guided velocity."""

OUTPUT_TYPES = ("pil", "pt", "latent")


@dataclass(frozen=True)
class SampleResult:
    """What a run drew, and when it looked."""

    images: Any
    """PIL images, a tensor [B, 3, height, width] in [0, 1] ("pt"), or the latents ("latent")."""
    latents: Tensor
    """The last latents as the pipeline holds them: [B, C, H, W], or packed for FLUX."""
    cond_sigmas: Tensor
    """t*, fp32 [B, evaluations] on the CPU, in [0, 1]."""
    deviations: Tensor
    """D before γ, fp32 [B, evaluations − 1] on the CPU."""


def integrate(
    velocity: Velocity,
    scheduler: Any,
    latents: Tensor,
    policy: Policy,
    gamma: float,
    embeds: tuple[Tensor, Tensor],
    on_step: Callable[[StepState], None] | None = None,
    grid: tuple[int, int] | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Algorithm 2: the update follows the scheduler's grid, the denoiser is told the policy's time.

    Args:
        velocity: the guided velocity field.
        scheduler: a diffusers flow scheduler whose timesteps are set.
        latents: noise at t_0, [B, …].
        embeds: sequence and pooled prompt embeddings, for the policy.
        grid: rows and columns of packed latents, for the policy.

    Returns:
        The latents at t = 0, t* of each evaluation, and D of each but the first, each [B].
    """
    scheduler.set_begin_index(0)
    steps, timesteps = len(scheduler.timesteps), scheduler.timesteps
    sigmas = scheduler.sigmas.to(latents.device)
    if sigmas[-1] > 0:  # the grid stops early: one more evaluation, and an Euler step to 0
        timesteps = torch.cat([timesteps, (desync.TIMESTEPS * sigmas[-1:]).to(timesteps)])
        sigmas = torch.cat([sigmas, torch.zeros_like(sigmas[-1:])])
    cond_sigma = sigmas[0].expand(len(latents))  # line 2: t*_0 = t_0
    cond_sigmas, deviations = [cond_sigma], []

    for k, t in enumerate(timesteps):
        v = velocity(latents, t, sigmas[k], cond_sigma)  # lines 4 to 6
        v = scaled(policy, gamma, v, sigmas[k], cond_sigma)  # Eq. 19, for the policies that do
        state = StepState(
            k, len(timesteps), sigmas[k], sigmas[k + 1], cond_sigma, latents, v, *embeds, grid
        )
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
    return latents, cond_sigmas, deviations


@torch.no_grad()
def sample(
    backbone: Backbone,
    prompts: str | Sequence[str] | None = None,
    policy: Policy | None = None,
    gamma: float = 1.0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    latents: Tensor | None = None,
    output_type: str = "pil",
    *,
    negative_prompt: str | Sequence[str] | None = None,
    true_cfg_scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
    prompt_embeds: Tensor | None = None,
    pooled_prompt_embeds: Tensor | None = None,
    negative_prompt_embeds: Tensor | None = None,
    negative_pooled_prompt_embeds: Tensor | None = None,
    max_sequence_length: int | None = None,
    on_step: Callable[[StepState], None] | None = None,
) -> SampleResult:
    """Draw one image per prompt, each conditioned on its own times.

    Args:
        backbone: from `load_backbone` or `backbone_from_pipeline`.
        prompts: one prompt, or one per image; None if embeddings are given.
        policy: who chooses the deviations; default synchronous.
        gamma: γ, what the deviations are multiplied by (Eq. 12). At 0 the images are the stock
            pipeline's, to the bit.
        num_inference_steps, height, width: default the backbone's; sizes in pixels.
        guidance_scale: classifier-free guidance for SD3, off at 1 or below; for FLUX the embedded
            guidance. Default the backbone's.
        generator: one for the batch, or one per image, which makes an image independent of its
            batch.
        latents: the noise in place of a generator, shaped as in `SampleResult`.
        output_type: "pil", "pt" or "latent".
        negative_prompt: one, or one per image.
        true_cfg_scale: for FLUX with a negative prompt, its classifier-free guidance; default
            `guidance_scale`.
        prompt_embeds, …: in place of the prompts; [B, tokens, channels], pooled [B, channels].
        max_sequence_length: T5 tokens; default the backbone's, or the pipeline's.
        on_step: called after each evaluation with its state.

    Raises:
        InputError: for settings that cannot work together or with this backbone.
        AsyncDiffError: for NaN or infinity in the latents, naming the step.
    """
    adapter, pipe, entry = backbone.adapter, backbone.pipe, backbone.entry
    chosen = policy or Synchronous()
    steps = entry.num_inference_steps if num_inference_steps is None else num_inference_steps
    scale = entry.guidance_scale if guidance_scale is None else guidance_scale
    length = entry.max_sequence_length if max_sequence_length is None else max_sequence_length
    guidance = Guidance(scale, scale if true_cfg_scale is None else true_cfg_scale)
    height = backbone.size if height is None else height
    width = backbone.size if width is None else width
    texts = [prompts] if isinstance(prompts, str) else None if prompts is None else list(prompts)
    given = {
        "prompt_embeds": prompt_embeds,
        "pooled_prompt_embeds": pooled_prompt_embeds,
        "negative_prompt_embeds": negative_prompt_embeds,
        "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds,
    }

    if generator is not None and not isinstance(generator, torch.Generator):
        generator = list(generator)

    checks.check_gamma(gamma)
    checks.check_steps(steps)
    checks.check_choice("output_type", output_type, OUTPUT_TYPES)
    checks.check_size(height, width, adapter.size_multiple)
    batch = checks.check_text(texts, negative_prompt, **given)
    shape = adapter.latents_shape(batch, height, width)
    negatives = [negative_prompt] * batch if isinstance(negative_prompt, str) else negative_prompt
    checks.check_batch(batch, shape, generator, negatives, latents)
    has_negative = negatives is not None or negative_prompt_embeds is not None
    do_cfg = adapter.does_cfg(guidance, has_negative)
    if texts is not None or (do_cfg and negative_prompt_embeds is None):
        checks.check_encoders(pipe)

    text = adapter.encode(texts, negatives, given, do_cfg, length)
    embeds = text.prompt_embeds, text.pooled_prompt_embeds
    noise = adapter.prepare_latents((batch, height, width), embeds[0].dtype, generator, latents)
    adapter.set_timesteps(steps, noise)
    denoise = adapter.denoiser(text, guidance, height, width)
    with ConditioningTime(pipe.transformer) as time:

        def velocity(latents: Tensor, timestep: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
            time.set(sigma, cond)
            return denoise(latents, timestep)

        final, cond_sigmas, deviations = integrate(
            velocity,
            pipe.scheduler,
            noise,
            chosen,
            gamma,
            embeds,
            on_step,
            adapter.grid(height, width),
        )
    decoded = output_type != "latent"
    images = adapter.decode(final, height, width, output_type) if decoded else final
    pipe.maybe_free_model_hooks()
    return SampleResult(images, final, stacked(cond_sigmas), stacked(deviations, batch))


def stacked(per_evaluation: list[Tensor], batch: int = 0) -> Tensor:
    """A list of [B] as one [B, evaluations] on the CPU; [batch, 0] for an empty one."""
    if not per_evaluation:
        return torch.zeros(batch, 0)
    return torch.stack(per_evaluation, dim=1).cpu()
