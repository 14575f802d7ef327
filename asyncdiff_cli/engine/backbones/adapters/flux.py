"""FLUX.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.adapters.base import (
    Denoiser,
    Guidance,
    PackedAdapter,
    TextConditions,
    length,
)


class FluxAdapter(PackedAdapter):
    """Guidance is embedded ([dev]) or not there ([schnell]); a negative prompt adds a second call
    per evaluation."""

    family = "flux"
    has_pooled = True

    def does_cfg(self, guidance: Guidance, negative_given: bool) -> bool:
        return negative_given and guidance.true_cfg > 1

    def encode_branch(
        self,
        prompts: list[str] | None,
        given: Mapping[str, Tensor | None],
        max_sequence_length: int | None,
    ) -> TextConditions:
        embeds, pooled, _ = self.pipe.encode_prompt(
            prompt=prompts,
            prompt_2=None,
            prompt_embeds=given["prompt_embeds"],
            pooled_prompt_embeds=given["pooled_prompt_embeds"],
            device=self.pipe._execution_device,
            **length(max_sequence_length),
        )
        return TextConditions(embeds, pooled)

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        transformer = self.pipe.transformer
        device, dtype = text.prompt_embeds.device, text.prompt_embeds.dtype
        rows, columns = self.token_grid(height, width)
        image_ids = self.pipe._prepare_latent_image_ids(None, rows, columns, device, dtype)
        scale = None
        if transformer.config.guidance_embeds:
            scale = torch.full([1], guidance.scale, device=device, dtype=torch.float32)

        def branch(name: str, text: TextConditions, latents: Tensor, timestep: Tensor) -> Tensor:
            embeds = text.prompt_embeds
            with transformer.cache_context(name):
                return transformer(
                    hidden_states=latents,
                    timestep=timestep.expand(len(latents)).to(latents.dtype) / desync.TIMESTEPS,
                    guidance=None if scale is None else scale.expand(len(latents)),
                    pooled_projections=text.pooled_prompt_embeds,
                    encoder_hidden_states=embeds,
                    txt_ids=torch.zeros(embeds.shape[1], 3, device=device, dtype=dtype),
                    img_ids=image_ids,
                    return_dict=False,
                )[0]

        negative = text.negative

        def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
            conditional = branch("cond", text, latents, timestep)
            if negative is None:
                return conditional
            unconditional = branch("uncond", negative, latents, timestep)
            return unconditional + guidance.true_cfg * (conditional - unconditional)

        return velocity

    def unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        return self.pipe._unpack_latents(latents, height, width, self.pipe.vae_scale_factor)


class FluxKontextAdapter(FluxAdapter):
    """FLUX.1 Kontext without an image to edit, which is FLUX.1 [dev] with other weights."""

    def prepare_latents(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        generator: Sequence[torch.Generator] | torch.Generator | None,
        latents: Tensor | None,
    ) -> Tensor:
        batch, height, width = shape
        device = self.pipe._execution_device
        if latents is not None:
            return latents.to(device=device, dtype=dtype)
        return self.pipe.prepare_latents(
            None, batch, self.latent_channels, height, width, dtype, device, generator
        )[0]
