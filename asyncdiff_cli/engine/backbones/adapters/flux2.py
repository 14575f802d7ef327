"""FLUX.2 [dev] and [klein]."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu, format_input
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.adapters.base import (
    Denoiser,
    Guidance,
    PackedAdapter,
    TextConditions,
    length,
)
from asyncdiff_cli.engine.backbones.adapters.reader import Reader
from asyncdiff_cli.engine.errors import InputError


class Flux2Adapter(PackedAdapter):
    """[dev]: guidance is embedded, and there is no negative prompt."""

    family = "flux2"
    time_embedding = "time_guidance_embed"
    time_projection = "time_guidance_embed.timestep_embedder"

    def does_cfg(self, guidance: Guidance, negative_given: bool) -> bool:
        if negative_given:
            raise InputError("FLUX.2 [dev] takes no negative prompt: its guidance is embedded")
        return False

    def encode_branch(
        self,
        prompts: list[str] | None,
        given: Mapping[str, Tensor | None],
        max_sequence_length: int | None,
    ) -> TextConditions:
        embeds, _ = self.pipe.encode_prompt(
            prompt=prompts,
            device=self.pipe._execution_device,
            prompt_embeds=given["prompt_embeds"],
            **length(max_sequence_length),
        )
        return TextConditions(embeds)

    def readers(self, max_sequence_length: int | None) -> list[Reader]:
        tokenizer = getattr(self.pipe.tokenizer, "tokenizer", self.pipe.tokenizer)
        limit = self.text_tokens(max_sequence_length)
        return [Reader("its text encoder", tokenizer, limit, self._template)]

    def _template(self, prompt: str) -> str:
        (messages,) = format_input([prompt], self.pipe.system_message)
        return self.pipe.tokenizer.apply_chat_template(messages, tokenize=False)

    def _steps_shift(self, tokens: int, steps: int) -> float:
        return compute_empirical_mu(image_seq_len=tokens, num_steps=steps)

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        transformer, device = self.pipe.transformer, text.prompt_embeds.device
        places = torch.empty(len(text.prompt_embeds), 0, *self.token_grid(height, width))
        image_ids = self.pipe._prepare_latent_ids(places).to(device)
        scale = self._embedded(guidance, device)

        def branch(name: str, text: TextConditions) -> Denoiser:
            text_ids = self.pipe._prepare_text_ids(text.prompt_embeds).to(device)

            def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
                with transformer.cache_context(name):
                    return transformer(
                        hidden_states=latents.to(transformer.dtype),
                        timestep=timestep.expand(len(latents)).to(latents.dtype) / desync.TIMESTEPS,
                        guidance=None if scale is None else scale.expand(len(latents)),
                        encoder_hidden_states=text.prompt_embeds,
                        txt_ids=text_ids,
                        img_ids=image_ids,
                        return_dict=False,
                    )[0]

            return velocity

        conditional = branch("cond", text)
        if text.negative is None:
            return conditional
        unconditional = branch("uncond", text.negative)

        def guided(latents: Tensor, timestep: Tensor) -> Tensor:
            positive, negative = (f(latents, timestep) for f in (conditional, unconditional))
            return negative + guidance.scale * (positive - negative)

        return guided

    def _embedded(self, guidance: Guidance, device: torch.device) -> Tensor | None:
        return torch.full([1], guidance.scale, device=device, dtype=torch.float32)

    def unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Patches [B, 4C, rows, columns], which is how the statistics of the VAE are kept."""
        return latents.unflatten(1, self.token_grid(height, width)).permute(0, 3, 1, 2)

    def decode_latents(self, latents: Tensor, height: int, width: int) -> Tensor:
        vae = self.pipe.vae
        patches = self.unpack(latents, height, width)
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(patches)
        std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
        patches = self.pipe._unpatchify_latents(patches * std.to(patches) + mean)
        return vae.decode(patches, return_dict=False)[0]


class Flux2KleinAdapter(Flux2Adapter):
    """[klein]: no embedded guidance; the base models take classifier-free guidance, in two calls
    per evaluation, and the distilled ones none."""

    family = "flux2-klein"

    def does_cfg(self, guidance: Guidance, negative_given: bool) -> bool:
        return guidance.scale > 1 and not self.pipe.config.is_distilled

    def _embedded(self, guidance: Guidance, device: torch.device) -> None:
        return None

    def _template(self, prompt: str) -> str:
        return self.pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
