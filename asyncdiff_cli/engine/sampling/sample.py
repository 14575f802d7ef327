"""Asynchronous sampling: the call around the loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine import checks
from asyncdiff_cli.engine.backbones.adapters import Guidance
from asyncdiff_cli.engine.backbones.adapters.encoding import encode
from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.sequences import join_sequences
from asyncdiff_cli.engine.errors import AsyncDiffWarning, InputError
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.policies.given import Synchronous
from asyncdiff_cli.engine.sampling import arguments
from asyncdiff_cli.engine.sampling.loop import denoising, integrate

OUTPUT_TYPES = ("pil", "pt", "latent")


@dataclass(frozen=True)
class SampleResult:
    """What a run drew, and when it looked."""

    images: Any
    """PIL images, a tensor [B, 3, height, width] in [0, 1] ("pt"), or the latents ("latent")."""
    latents: Tensor
    """The last latents as the pipeline holds them: [B, C, H, W], or packed [B, tokens, 4C]."""
    cond_sigmas: Tensor
    """t*, fp32 [B, evaluations] on the CPU, in [0, 1]."""
    deviations: Tensor
    """D before γ, fp32 [B, evaluations − 1] on the CPU."""


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
    prompt_embeds: Tensor | Sequence[Tensor] | None = None,
    pooled_prompt_embeds: Tensor | None = None,
    negative_prompt_embeds: Tensor | Sequence[Tensor] | None = None,
    negative_pooled_prompt_embeds: Tensor | None = None,
    prompt_embeds_mask: Tensor | None = None,
    negative_prompt_embeds_mask: Tensor | None = None,
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
        guidance_scale: classifier-free guidance for SD3 and FLUX.2 [klein], off at 1 or below, and
            for Z-Image, off at 0; for FLUX.1 and FLUX.2 [dev] the embedded guidance. Default the
            backbone's.
        generator: one for the batch, or one per image, which makes an image independent of its
            batch.
        latents: the noise in place of a generator, shaped as in `SampleResult`.
        output_type: "pil", "pt" or "latent".
        negative_prompt: one, or one per image; default the backbone's.
        true_cfg_scale: for FLUX.1 and Qwen-Image with a negative prompt, their classifier-free
            guidance; default `guidance_scale`.
        prompt_embeds, …: in place of the prompts; [B, tokens, channels], pooled [B, channels]. For
            Qwen-Image with masks [B, tokens], or none if no token is padding. For Z-Image as that,
            or as its pipeline takes them, a list of [tokens, channels].
        max_sequence_length: tokens of the text, for SD3 and FLUX.1 of T5's; default the backbone's,
            or the pipeline's.
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
    if negative_prompt is None and negative_prompt_embeds is None:
        negative_prompt = entry.negative_prompt
    embeds, mask = _batched(prompt_embeds, prompt_embeds_mask)
    negative_embeds, negative_mask = _batched(negative_prompt_embeds, negative_prompt_embeds_mask)
    given = {
        "prompt_embeds": embeds,
        "pooled_prompt_embeds": pooled_prompt_embeds,
        "negative_prompt_embeds": negative_embeds,
        "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds,
        "prompt_embeds_mask": mask,
        "negative_prompt_embeds_mask": negative_mask,
    }

    if generator is not None:
        generator = arguments.check_generators(generator)

    arguments.check_policy(chosen)
    checks.check_gamma(gamma)
    checks.check_number("guidance_scale", guidance.scale)
    checks.check_number("true_cfg_scale", guidance.true_cfg)
    checks.check_steps(steps)
    arguments.check_length(length)
    checks.check_choice("output_type", output_type, OUTPUT_TYPES)
    backbone.check_size(height, width)
    batch = arguments.check_text(
        texts, negative_prompt, given, pooled=adapter.has_pooled, masked=adapter.has_mask
    )
    shape = adapter.latents_shape(batch, height, width)
    negatives = [negative_prompt] * batch if isinstance(negative_prompt, str) else negative_prompt
    arguments.check_batch(batch, shape, generator, negatives, latents)
    has_negative = negatives is not None or negative_embeds is not None
    do_cfg = adapter.does_cfg(guidance, has_negative)
    if texts is not None or (do_cfg and negative_embeds is None):
        arguments.check_encoders(pipe, adapter.has_pooled)

    if not do_cfg and any(text and text != entry.negative_prompt for text in negatives or ()):
        warnings.warn(
            f"the negative prompt has no effect: {entry.name} uses none at this guidance",
            AsyncDiffWarning,
            stacklevel=3,
        )
    text = encode(adapter, texts, negatives, given, do_cfg, length)
    dtype = text.prompt_embeds.dtype
    noise = adapter.prepare_latents((batch, height, width), dtype, generator, latents)
    adapter.set_timesteps(steps, noise)
    with denoising(adapter) as field:
        final, cond_sigmas, deviations = integrate(
            field(text, guidance, height, width),
            pipe.scheduler,
            noise,
            chosen,
            gamma,
            text,
            on_step,
            adapter.grid(height, width),
        )
    images = final
    if output_type != "latent":  # all at once, as the stock pipeline does: to the bit on any device
        images = adapter.decode(final, height, width, output_type, at_once=batch)
    pipe.maybe_free_model_hooks()
    return SampleResult(images, final, stacked(cond_sigmas), stacked(deviations, batch))


def _batched(
    embeds: Tensor | Sequence[Tensor] | None, mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Embeddings as one tensor, and where it is not padding; also those in a list."""
    if embeds is None or isinstance(embeds, Tensor):
        return embeds, None if mask is None else mask.bool()
    if mask is not None:
        raise InputError("a mask belongs to embeddings in one tensor, not to a list of them")
    return join_sequences([sequence[None] for sequence in embeds], [None] * len(embeds))


def stacked(per_evaluation: list[Tensor], batch: int = 0) -> Tensor:
    """A list of [B] as one [B, evaluations] on the CPU; [batch, 0] for an empty one."""
    if not per_evaluation:
        return torch.zeros(batch, 0)
    return torch.stack(per_evaluation, dim=1).cpu()
