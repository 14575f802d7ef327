"""Z-Image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.adapters.base import (
    Adapter,
    Denoiser,
    Guidance,
    TextConditions,
    length,
    takes_sigmas,
)
from asyncdiff_cli.engine.backbones.adapters.reader import Reader
from asyncdiff_cli.engine.backbones.sequences import join_sequences


class ZImageAdapter(Adapter):
    """Its time runs from 0, noise, to 1, its latents are fp32, and its prompts are lists of
    sequences; both guidance branches are in one call, [positive, negative]."""

    family = "z-image"
    hands_grid = True
    time_embedding = "t_embedder"
    has_mask = True
    default_size = 1024

    @property
    def largest_size(self) -> int:
        """Pixels to a side, as far as its positions reach."""
        return min(self.pipe.transformer.config.axes_lens[1:]) * self.size_multiple

    def model_time(self, cond_sigma: Tensor) -> Tensor:
        return self.pipe.transformer.t_scale * (1 - cond_sigma)

    def does_cfg(self, guidance: Guidance, negative_given: bool) -> bool:
        return guidance.scale > 0

    def encode_branch(
        self,
        prompts: list[str] | None,
        given: Mapping[str, Tensor | None],
        max_sequence_length: int | None,
    ) -> TextConditions:
        if given["prompt_embeds"] is not None:
            embeds = given["prompt_embeds"].to(self.pipe._execution_device)
            return TextConditions(embeds, prompt_embeds_mask=given["prompt_embeds_mask"])
        sequences, _ = self.pipe.encode_prompt(
            prompt=prompts,
            device=self.pipe._execution_device,
            do_classifier_free_guidance=False,
            **length(max_sequence_length),
        )
        return _padded(sequences)

    def readers(self, max_sequence_length: int | None) -> list[Reader]:
        limit = self.text_tokens(max_sequence_length)
        return [Reader("Qwen3", self.pipe.tokenizer, limit, self._template)]

    def _template(self, prompt: str) -> str:
        return self.pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=True,
        )

    def prepare_latents(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        generator: Sequence[torch.Generator] | torch.Generator | None,
        latents: Tensor | None,
    ) -> Tensor:
        return super().prepare_latents(shape, torch.float32, generator, latents)

    def set_timesteps(self, num_inference_steps: int, latents: Tensor) -> None:
        rows, columns = latents.shape[-2:]
        sigmas = torch.linspace(1.0, 1 / num_inference_steps, num_inference_steps).numpy()
        given = sigmas if takes_sigmas(self.pipe.scheduler) else None
        shift = self._shift((rows // 2) * (columns // 2))
        self._set_grid(num_inference_steps, latents, given, shift)

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        transformer, negative = self.pipe.transformer, text.negative
        branches = [text] if negative is None else [text, negative]
        sequences = [sequence for branch in branches for sequence in _sequences(branch)]

        def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
            model_input = latents.to(transformer.dtype).repeat(len(branches), 1, 1, 1)
            time = (desync.TIMESTEPS - timestep.expand(len(model_input))) / desync.TIMESTEPS
            images = list(model_input.unsqueeze(2).unbind(0))
            prediction = transformer(images, time, sequences, return_dict=False)[0]
            conditional, *unconditional = torch.stack(prediction).float().chunk(len(branches))
            if unconditional:
                conditional = conditional + guidance.scale * (conditional - unconditional[0])
            return -conditional.squeeze(2)

        return velocity

    def unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        return latents.to(self.pipe.vae.dtype)

    def text_of_call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int
    ) -> TextConditions:
        return _padded(args[2][:batch])


def _padded(sequences: Sequence[Tensor]) -> TextConditions:
    """Sequences [tokens, channels] of several lengths as one tensor."""
    embeds, mask = join_sequences([s[None] for s in sequences], [None] * len(sequences))
    return TextConditions(embeds, prompt_embeds_mask=mask)


def _sequences(text: TextConditions) -> list[Tensor]:
    """The sequences of `_padded`."""
    if text.prompt_embeds_mask is None:
        return list(text.prompt_embeds)
    pairs = zip(text.prompt_embeds, text.prompt_embeds_mask, strict=True)
    return [sequence[mask] for sequence, mask in pairs]
