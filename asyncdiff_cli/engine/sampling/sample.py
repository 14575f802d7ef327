"""Asynchronous sampling: the call around the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from asyncdiff_cli.engine import checks
from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.policies.given import Synchronous
from asyncdiff_cli.engine.sampling import arguments
from asyncdiff_cli.engine.sampling.arguments import TextOptions
from asyncdiff_cli.engine.sampling.loop import Velocity, denoising, integrate
from asyncdiff_cli.engine.sampling.sharing import shared
from asyncdiff_cli.engine.sampling.text_input import TextInput, guidance_of

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
    height: int | None = None,
    width: int | None = None,
    share_first: int = False,
    on_step: Callable[[StepState], None] | None = None,
    **text: Unpack[TextOptions],
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
        share_first: evaluate images of equal noise and text once at the start, where all see the
            same time; a number for as many first evaluations, at each of which those of equal
            latents and times are alike. Their last bits may differ from those of a batch that is
            evaluated whole.
        on_step: called after each evaluation with its state.
        text: `negative_prompt`, `true_cfg_scale`, `max_sequence_length`, and `prompt_embeds`, … in
            place of the prompts, as in `TextOptions`.

    Raises:
        InputError: for settings that cannot work together or with this backbone.
        AsyncDiffError: for NaN or infinity in the latents, naming the step.

    Example:
        >>> import torch
        >>> backbone = load_backbone("mini", device="cpu")
        >>> noise = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        >>> result = sample(
        ...     backbone,
        ...     ["a cat", "a rose"],
        ...     FixedDeviation(0.5),
        ...     gamma=1.5,
        ...     num_inference_steps=3,
        ...     generator=noise,
        ... )
        >>> len(result.images), result.images[0].size
        (2, (128, 128))
        >>> result.cond_sigmas.shape, result.deviations.shape
        (torch.Size([2, 3]), torch.Size([2, 2]))
    """
    arguments.check_keywords("sample", text)
    adapter, pipe, chosen = backbone.adapter, backbone.pipe, policy or Synchronous()
    steps = num_inference_steps
    steps = backbone.entry.num_inference_steps if steps is None else steps
    height = backbone.size if height is None else height
    width = backbone.size if width is None else width

    generators = arguments.check_generators(generator)
    arguments.check_is_policy(chosen)
    checks.check_gamma(gamma)
    guidance = guidance_of(backbone, guidance_scale, text.get("true_cfg_scale"))
    checks.check_steps(steps)
    checks.check_choice("output_type", output_type, OUTPUT_TYPES)
    backbone.check_size(height, width)
    given = TextInput.of(backbone, prompts, text)
    shape = adapter.latents_shape(given.batch, height, width)
    arguments.check_batch(given.batch, shape, generators, given.negatives, latents)

    conditions = given.encode(backbone, guidance)
    dtype = conditions.prompt_embeds.dtype
    noise = adapter.prepare_latents((given.batch, height, width), dtype, generators, latents)
    adapter.set_timesteps(steps, noise)
    token_grid = adapter.token_grid(height, width)
    with denoising(adapter) as field:

        def velocity(text: TextConditions) -> Velocity:
            return field(text, guidance, height, width)

        first = shared(velocity, conditions) if share_first else None
        final, cond_sigmas, deviations = integrate(
            velocity(conditions), pipe.scheduler, noise, chosen, gamma, conditions, on_step,
            token_grid, first, int(share_first),
        )  # fmt: skip
    images = final
    if output_type != "latent":  # all at once, as the stock pipeline does: to the bit on any device
        images = adapter.decode(final, height, width, output_type, at_once=given.batch)
    pipe.maybe_free_model_hooks()
    return SampleResult(images, final, stacked(cond_sigmas), stacked(deviations, given.batch))


def stacked(per_evaluation: list[Tensor], batch: int = 0) -> Tensor:
    """A list of [B] as one [B, evaluations] on the CPU; [batch, 0] for an empty one."""
    if not per_evaluation:
        return torch.zeros(batch, 0)
    return torch.stack(per_evaluation, dim=1).cpu()
