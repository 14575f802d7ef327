"""What differs between model families, made of a diffusers pipeline's own components and methods.

Each method does what the pipeline's `__call__` does at that place, in the same order on the same
values, so that a synchronous run returns the pipeline's own bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from torch import Tensor

from asyncdiff_cli.engine import desync

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Latents [B, …] and the scheduler's timestep [] to the guided velocity, shaped as the latents."""


@dataclass(frozen=True)
class TextConditions:
    """Encoded prompts: sequences [B, tokens, channels] and pooled vectors [B, channels]."""

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    negative_prompt_embeds: Tensor | None = None
    negative_pooled_prompt_embeds: Tensor | None = None


@dataclass(frozen=True)
class Guidance:
    """`scale` is classifier-free guidance for SD3 and the embedded guidance for FLUX; `true_cfg`
    is FLUX's classifier-free guidance, which needs negative conditions."""

    scale: float
    true_cfg: float


class ConditioningTime:
    """While entered, lets a transformer see its own time for each image.

    The time is handed over where the transformer embeds it, `time_text_embed`, in fp32. Before
    that, FLUX casts its timestep to the dtype of the latents, and in bf16 the times above 0.5 are
    0.004 apart. A module's forward pre-hook survives accelerate's offloading, which replaces
    `forward`; it is a closure, so that a deep copy of the module is inert once this has exited.
    """

    def __init__(self, transformer: Any) -> None:
        self._time_text_embed = transformer.time_text_embed
        self.clear()

    def set(self, sigma: Tensor, cond_sigma: Tensor) -> None:
        """Condition the next evaluations on t* = `cond_sigma` [B] at the grid's t = `sigma` []."""
        self._times: tuple[Tensor, Tensor] | None = (sigma, cond_sigma)

    def clear(self) -> None:
        """Leave the timestep alone."""
        self._times = None

    def __enter__(self) -> ConditioningTime:
        def replace(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            if self._times is None:
                return args
            timestep, *rest = args
            return (desync.model_timestep(timestep, *self._times), *rest)

        self._hook = self._time_text_embed.register_forward_pre_hook(replace)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        self.clear()


class Adapter:
    """One family: how to encode, denoise and decode with its diffusers pipeline."""

    family: ClassVar[str]
    max_shift: ClassVar[float]

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    @property
    def size_multiple(self) -> int:
        """Height and width in pixels are multiples of this."""
        raise NotImplementedError

    def does_cfg(self, guidance: Guidance, negative_given: bool) -> bool:
        """Whether there is a negative branch."""
        raise NotImplementedError

    def encode(
        self,
        prompts: list[str] | None,
        negative: Sequence[str] | None,
        given: Mapping[str, Tensor | None],
        do_cfg: bool,
        max_sequence_length: int | None,
    ) -> TextConditions:
        """Encode the prompts, or pass on the fields of the conditions given in their place."""
        raise NotImplementedError

    def latents_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """The shape that the latents have in the loop."""
        raise NotImplementedError

    def prepare_latents(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        generator: Sequence[torch.Generator] | torch.Generator | None,
        latents: Tensor | None,
    ) -> Tensor:
        """Draw the noise for (batch, height, width), or move the given latents into place."""
        raise NotImplementedError

    def set_timesteps(self, num_inference_steps: int, latents: Tensor) -> None:
        """Set the scheduler's grid."""
        raise NotImplementedError

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        """The velocity field of a run (Algorithm 2, lines 4 to 6)."""
        raise NotImplementedError

    def unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        """The latents as the VAE takes them, [B, C, H, W]."""
        raise NotImplementedError

    def grid(self, height: int, width: int) -> tuple[int, int] | None:
        """Rows and columns of tokens where the loop's latents are packed, else None."""
        return None

    def decode(self, latents: Tensor, height: int, width: int, output_type: str) -> Any:
        """The images, as PIL images or a [B, 3, height, width] tensor in [0, 1] ("pt")."""
        vae = self.pipe.vae
        latents = self.unpack(latents, height, width)
        latents = (latents / vae.config.scaling_factor) + vae.config.shift_factor
        images = vae.decode(latents, return_dict=False)[0]
        return self.pipe.image_processor.postprocess(images, output_type=output_type)

    def _shift(self, image_seq_len: int) -> dict[str, float]:
        config = self.pipe.scheduler.config
        if not config.get("use_dynamic_shifting", False):
            return {}
        mu = calculate_shift(
            image_seq_len,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", self.max_shift),
        )
        return {"mu": mu}


class SD3Adapter(Adapter):
    """Stable Diffusion 3 and 3.5: both guidance branches in one call, [negative, positive]."""

    family = "sd3"
    max_shift = 1.16

    @property
    def size_multiple(self) -> int:
        return self.pipe.vae_scale_factor * self.pipe.patch_size

    def does_cfg(self, guidance: Guidance, negative_given: bool) -> bool:
        return guidance.scale > 1

    def encode(
        self,
        prompts: list[str] | None,
        negative: Sequence[str] | None,
        given: Mapping[str, Tensor | None],
        do_cfg: bool,
        max_sequence_length: int | None,
    ) -> TextConditions:
        positive_embeds, negative_embeds, positive_pooled, negative_pooled = (
            self.pipe.encode_prompt(
                prompt=prompts,
                prompt_2=None,
                prompt_3=None,
                negative_prompt=negative and list(negative),
                do_classifier_free_guidance=do_cfg,
                device=self.pipe._execution_device,
                **given,
                **_length(max_sequence_length),
            )
        )
        if not do_cfg:
            return TextConditions(positive_embeds, positive_pooled)
        return TextConditions(positive_embeds, positive_pooled, negative_embeds, negative_pooled)

    def latents_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        factor = self.pipe.vae_scale_factor
        return batch, self.pipe.transformer.config.in_channels, height // factor, width // factor

    def prepare_latents(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        generator: Sequence[torch.Generator] | torch.Generator | None,
        latents: Tensor | None,
    ) -> Tensor:
        batch, height, width = shape
        channels = self.pipe.transformer.config.in_channels
        device = self.pipe._execution_device
        return self.pipe.prepare_latents(
            batch, channels, height, width, dtype, device, generator, latents
        )

    def set_timesteps(self, num_inference_steps: int, latents: Tensor) -> None:
        height, width = latents.shape[-2:]
        patch = self.pipe.transformer.config.patch_size
        retrieve_timesteps(
            self.pipe.scheduler,
            num_inference_steps,
            latents.device,
            **self._shift((height // patch) * (width // patch)),
        )

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        embeds, pooled = text.prompt_embeds, text.pooled_prompt_embeds
        negative, negative_pooled = text.negative_prompt_embeds, text.negative_pooled_prompt_embeds
        do_cfg = negative is not None and negative_pooled is not None
        if negative is not None and negative_pooled is not None:
            embeds = torch.cat([negative, embeds])
            pooled = torch.cat([negative_pooled, pooled])

        def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
            model_input = torch.cat([latents] * 2) if do_cfg else latents
            prediction = self.pipe.transformer(
                hidden_states=model_input,
                timestep=timestep.expand(len(model_input)),
                encoder_hidden_states=embeds,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
            if not do_cfg:
                return prediction
            unconditional, conditional = prediction.chunk(2)
            return unconditional + guidance.scale * (conditional - unconditional)

        return velocity

    def unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        return latents


class FluxAdapter(Adapter):
    """FLUX.1: guidance is embedded; a negative prompt adds a second call per evaluation."""

    family = "flux"
    max_shift = 1.15

    @property
    def size_multiple(self) -> int:
        return self.pipe.vae_scale_factor * 2

    def does_cfg(self, guidance: Guidance, negative_given: bool) -> bool:
        return negative_given and guidance.true_cfg > 1

    def encode(
        self,
        prompts: list[str] | None,
        negative: Sequence[str] | None,
        given: Mapping[str, Tensor | None],
        do_cfg: bool,
        max_sequence_length: int | None,
    ) -> TextConditions:
        def encode(
            prompts: Sequence[str] | None, embeds: Tensor | None, pooled: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            return self.pipe.encode_prompt(
                prompt=prompts and list(prompts),
                prompt_2=None,
                prompt_embeds=embeds,
                pooled_prompt_embeds=pooled,
                device=self.pipe._execution_device,
                **_length(max_sequence_length),
            )[:2]

        positive = encode(prompts, given["prompt_embeds"], given["pooled_prompt_embeds"])
        if not do_cfg:
            return TextConditions(*positive)
        return TextConditions(
            *positive,
            *encode(
                negative,
                given["negative_prompt_embeds"],
                given["negative_pooled_prompt_embeds"],
            ),
        )

    def latents_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        rows, columns = self.grid(height, width)
        return batch, rows * columns, self.pipe.transformer.config.in_channels

    def prepare_latents(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        generator: Sequence[torch.Generator] | torch.Generator | None,
        latents: Tensor | None,
    ) -> Tensor:
        batch, height, width = shape
        channels = self.pipe.transformer.config.in_channels // 4
        device = self.pipe._execution_device
        return self.pipe.prepare_latents(
            batch, channels, height, width, dtype, device, generator, latents
        )[0]

    def set_timesteps(self, num_inference_steps: int, latents: Tensor) -> None:
        own_grid = self.pipe.scheduler.config.get("use_flow_sigmas", False)
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        retrieve_timesteps(
            self.pipe.scheduler,
            num_inference_steps,
            latents.device,
            sigmas=None if own_grid else sigmas,
            **self._shift(latents.shape[1]),
        )

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        transformer = self.pipe.transformer
        device, dtype = text.prompt_embeds.device, text.prompt_embeds.dtype
        rows, columns = self.grid(height, width)
        image_ids = self.pipe._prepare_latent_image_ids(None, rows, columns, device, dtype)
        scale = None
        if transformer.config.guidance_embeds:
            scale = torch.full([1], guidance.scale, device=device, dtype=torch.float32)

        def branch(
            name: str, latents: Tensor, timestep: Tensor, embeds: Tensor, pooled: Tensor
        ) -> Tensor:
            with transformer.cache_context(name):
                return transformer(
                    hidden_states=latents,
                    timestep=timestep.expand(len(latents)).to(latents.dtype) / desync.TIMESTEPS,
                    guidance=None if scale is None else scale.expand(len(latents)),
                    pooled_projections=pooled,
                    encoder_hidden_states=embeds,
                    txt_ids=torch.zeros(embeds.shape[1], 3, device=device, dtype=dtype),
                    img_ids=image_ids,
                    return_dict=False,
                )[0]

        positive, pooled = text.prompt_embeds, text.pooled_prompt_embeds
        negative, negative_pooled = text.negative_prompt_embeds, text.negative_pooled_prompt_embeds

        def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
            conditional = branch("cond", latents, timestep, positive, pooled)
            if negative is None or negative_pooled is None:
                return conditional
            unconditional = branch("uncond", latents, timestep, negative, negative_pooled)
            return unconditional + guidance.true_cfg * (conditional - unconditional)

        return velocity

    def unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        return self.pipe._unpack_latents(latents, height, width, self.pipe.vae_scale_factor)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return height // self.size_multiple, width // self.size_multiple


def _length(max_sequence_length: int | None) -> dict[str, int]:
    """The pipelines' own defaults differ, so only a given length is passed on."""
    return {} if max_sequence_length is None else {"max_sequence_length": max_sequence_length}


ADAPTERS: dict[Any, type[Adapter]] = {
    StableDiffusion3Pipeline: SD3Adapter,
    FluxPipeline: FluxAdapter,
}
