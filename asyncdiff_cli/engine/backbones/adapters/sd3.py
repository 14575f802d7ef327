"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters.base import (
    Adapter,
    Denoiser,
    Guidance,
    TextConditions,
    length,
)


class SD3Adapter(Adapter):
    """Adapter of SD3: both guidance branches in one call, [negative, positive]."""

    family = "sd3"
    has_pooled = True
    max_shift = 1.16

    @property
    def size_multiple(self) -> int:
        pipe = self.pipe  # one with a control net does not tell the size of the patches
        patch = getattr(pipe, "patch_size", None) or pipe.transformer.config.patch_size
        return int(pipe.vae_scale_factor * patch)

    @property
    def largest_size(self) -> int:
        """Pixels to a side, as far as its positions reach."""
        return self.pipe.transformer.config.pos_embed_max_size * self.size_multiple

    def encoded_tokens(self, max_sequence_length: int | None) -> int:
        """The tokens of its CLIPs come before those of T5."""
        return self.pipe.tokenizer_max_length + self.text_tokens(max_sequence_length)

    def encode(
        self,
        prompts: list[str] | None,
        negative: Sequence[str] | None,
        given: Mapping[str, Tensor | None],
        do_cfg: bool,
        max_sequence_length: int | None,
    ) -> TextConditions:
        own = {name: value for name, value in given.items() if not name.endswith("_mask")}
        positive_embeds, negative_embeds, positive_pooled, negative_pooled = (
            self.pipe.encode_prompt(
                prompt=prompts,
                prompt_2=None,
                prompt_3=None,
                negative_prompt=negative and list(negative),
                do_classifier_free_guidance=do_cfg,
                device=self.pipe._execution_device,
                **own,
                **length(max_sequence_length),
            )
        )
        if not do_cfg:
            return TextConditions(positive_embeds, positive_pooled)
        return TextConditions(positive_embeds, positive_pooled, negative_embeds, negative_pooled)

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        embeds, pooled = text.prompt_embeds, text.pooled
        negative = text.negative
        if negative is not None:
            embeds = torch.cat([negative.prompt_embeds, embeds])
            pooled = torch.cat([negative.pooled, pooled])

        def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
            model_input = latents if negative is None else torch.cat([latents] * 2)
            prediction = self.pipe.transformer(
                hidden_states=model_input,
                timestep=timestep.expand(len(model_input)),
                encoder_hidden_states=embeds,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
            if negative is None:
                return prediction
            unconditional, conditional = prediction.chunk(2)
            return unconditional + guidance.scale * (conditional - unconditional)

        return velocity
