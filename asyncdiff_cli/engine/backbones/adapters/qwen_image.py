"""Qwen-Image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.adapters.base import (
    Denoiser,
    Guidance,
    PackedAdapter,
    TextConditions,
    length,
    takes_sigmas,
)
from asyncdiff_cli.engine.backbones.adapters.reader import Reader


class QwenImageAdapter(PackedAdapter):
    """A negative prompt adds a second call per evaluation; the guided velocity of each token gets
    the length of the conditional one."""

    family = "qwen-image"
    has_mask = True

    def model_time(self, cond_sigma: Tensor) -> Tensor:
        return cond_sigma

    def does_cfg(self, guidance: Guidance, negative_given: bool) -> bool:
        return negative_given and guidance.true_cfg > 1

    def encode_branch(
        self,
        prompts: list[str] | None,
        given: Mapping[str, Tensor | None],
        max_sequence_length: int | None,
    ) -> TextConditions:
        embeds, mask = self.pipe.encode_prompt(
            prompt=prompts,
            device=self.pipe._execution_device,
            prompt_embeds=given["prompt_embeds"],
            prompt_embeds_mask=given["prompt_embeds_mask"],
            **length(max_sequence_length or 512),  # of its `__call__`; `encode_prompt` has another
        )
        return TextConditions(embeds, prompt_embeds_mask=None if mask is None else mask.bool())

    def readers(self, max_sequence_length: int | None) -> list[Reader]:
        pipe = self.pipe
        limit = min(self.text_tokens(max_sequence_length), pipe.tokenizer_max_length)
        begin = pipe.prompt_template_encode_start_idx  # of the prompt in the template
        template = pipe.prompt_template_encode.format
        return [Reader("Qwen2.5-VL", pipe.tokenizer, limit + begin, template)]

    def set_timesteps(self, num_inference_steps: int, latents: Tensor) -> None:
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        given = sigmas if takes_sigmas(self.pipe.scheduler) else None
        self._set_grid(num_inference_steps, latents, given, self._shift(latents.shape[1]))

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        transformer, negative = self.pipe.transformer, text.negative
        places = [[(1, *self.token_grid(height, width))]] * len(text.prompt_embeds)

        def branch(name: str, text: TextConditions, latents: Tensor, timestep: Tensor) -> Tensor:
            with transformer.cache_context(name):
                return transformer(
                    hidden_states=latents,
                    timestep=timestep.expand(len(latents)).to(latents.dtype) / desync.TIMESTEPS,
                    encoder_hidden_states_mask=text.prompt_embeds_mask,
                    encoder_hidden_states=text.prompt_embeds,
                    img_shapes=places,
                    return_dict=False,
                )[0]

        def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
            conditional = branch("cond", text, latents, timestep)
            if negative is None:
                return conditional
            unconditional = branch("uncond", negative, latents, timestep)
            guided = unconditional + guidance.true_cfg * (conditional - unconditional)
            norm, guided_norm = (torch.norm(v, dim=-1, keepdim=True) for v in (conditional, guided))
            return guided * (norm / guided_norm)

        return velocity

    def token_grid_of_call(self, kwargs: Mapping[str, Any], latents: Tensor) -> tuple[int, int]:
        shape = kwargs["img_shapes"][0]
        _, rows, columns = shape[0] if isinstance(shape, list) else shape  # with a control net
        return rows, columns

    def unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Latents with an axis of one frame, [B, C, 1, H, W]."""
        return self.pipe._unpack_latents(latents, height, width, self.pipe.vae_scale_factor)

    def decode_latents(self, latents: Tensor, height: int, width: int) -> Tensor:
        vae = self.pipe.vae
        latents = self.unpack(latents, height, width).to(vae.dtype)
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(latents)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        return vae.decode(latents / (1.0 / std) + mean, return_dict=False)[0][:, :, 0]
