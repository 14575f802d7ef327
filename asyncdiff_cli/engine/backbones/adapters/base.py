"""What every adapter has, and what most of them do alike.

Each method does what the pipeline's `__call__` does at that place, in the same order on the same
values, so that a synchronous run returns the pipeline's own bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.adapters.conditioning import ConditioningTime, OnCall
from asyncdiff_cli.engine.backbones.adapters.decoding import SLICE, decode_in_slices
from asyncdiff_cli.engine.backbones.adapters.reader import Reader
from asyncdiff_cli.engine.backbones.sequences import mean_token
from asyncdiff_cli.engine.errors import InputError

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Latents [B, …] and the scheduler's timestep [] to the guided velocity, shaped as the latents."""


@dataclass(frozen=True)
class TextConditions:
    """Encoded prompts: sequences [B, tokens, channels], and what some models have beside them.

    Pooled vectors are [B, channels]. Masks are bool [B, tokens], True where a token is not padding;
    None where none is.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    negative_pooled_prompt_embeds: Tensor | None = None
    prompt_embeds_mask: Tensor | None = None
    negative_prompt_embeds_mask: Tensor | None = None

    @property
    def pooled(self) -> Tensor:
        """The pooled vectors; for a model that has none the mean of the tokens, [B, channels]."""
        if self.pooled_prompt_embeds is not None:
            return self.pooled_prompt_embeds
        return mean_token(self.prompt_embeds, self.prompt_embeds_mask)

    @property
    def negative(self) -> TextConditions | None:
        """The negative branch as conditions of its own; None where there is none."""
        if self.negative_prompt_embeds is None:
            return None
        return TextConditions(
            self.negative_prompt_embeds,
            self.negative_pooled_prompt_embeds,
            prompt_embeds_mask=self.negative_prompt_embeds_mask,
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fields that are there, [B, …] each."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def select(self, images: Sequence[int]) -> TextConditions:
        """The same, of some of the images."""
        return replace(self, **{name: tensor[images] for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Guidance:
    """`scale` is the model's usual guidance: classifier-free for SD3, FLUX.2 [klein] and Z-Image,
    embedded for FLUX. `true_cfg` is the classifier-free guidance of FLUX.1 and Qwen-Image, which
    needs negative conditions."""

    scale: float
    true_cfg: float


class Adapter:
    """One family: how to encode, denoise and decode with its diffusers pipeline.

    What is here serves a model on latents [B, C, H, W] that its transformer cuts into patches of
    2×2, with guidance by a second branch above a scale of 1. A new family writes `encode_branch`
    (or `encode`) and `denoiser`, and says where and in which units its transformer takes the time.
    """

    family: ClassVar[str]
    time_embedding: ClassVar[str] = "time_text_embed"
    """The path in the transformer of the submodule whose first argument is the timestep [n]."""
    time_projection: ClassVar[str | None] = None
    """A submodule of that one which is to be given the timestep's own dtype."""
    has_pooled: ClassVar[bool] = False
    """Whether the model takes pooled prompt embeddings."""
    has_mask: ClassVar[bool] = False
    """Whether the model takes prompts of several lengths in one batch."""
    hands_grid: ClassVar[bool] = False
    """Whether the pipeline hands 1, 1 − 1/K, …, 1/K to the scheduler; others leave it to it."""
    max_shift: ClassVar[float] = 1.15
    """Limit of the dynamic shift, where the scheduler's configuration does not say."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    def model_time(self, cond_sigma: Tensor) -> Tensor:
        """t* in [0, 1] in the units in which `time_embedding` takes it."""
        return desync.in_timesteps(cond_sigma)

    def conditioning_time(
        self, on_call: OnCall | None = None, network: Any = None
    ) -> ConditioningTime:
        """What hands t* to this transformer, or to a control net of its family."""
        return ConditioningTime(
            network or self.pipe.transformer,
            self.time_embedding,
            self.model_time,
            self.time_projection,
            on_call,
        )

    @property
    def size_multiple(self) -> int:
        """Height and width in pixels are multiples of this."""
        return self.pipe.vae_scale_factor * 2

    @property
    def largest_size(self) -> int | None:
        """Height and width in pixels are at most this; None where the model sets no bound."""
        return None

    @property
    def default_size(self) -> int:
        """Height and width in pixels that the pipeline draws if it is not told."""
        own = getattr(self.pipe, "default_sample_size", None)
        sample_size = own or self.pipe.transformer.config.sample_size
        return sample_size * self.pipe.vae_scale_factor

    @property
    def latent_channels(self) -> int:
        """C of the latents before they are packed."""
        return self.pipe.transformer.config.in_channels

    @property
    def channels(self) -> dict[str, int]:
        """What a timestep prediction module for this model is made for, by its arguments' names."""
        config = self.pipe.transformer.config
        prompt = config.get("joint_attention_dim") or config.cap_feat_dim
        return {
            "latent_channels": self.latent_channels,
            "prompt_channels": prompt,
            "pooled_channels": config.pooled_projection_dim if self.has_pooled else prompt,
        }

    def does_cfg(self, guidance: Guidance, negative_given: bool) -> bool:
        """Whether there is a negative branch.

        Raises:
            InputError: for a negative prompt that the model has no use for.
        """
        return guidance.scale > 1

    def encode(
        self,
        prompts: list[str] | None,
        negative: Sequence[str] | None,
        given: Mapping[str, Tensor | None],
        do_cfg: bool,
        max_sequence_length: int | None,
    ) -> TextConditions:
        """Encode the prompts, or pass on the fields of the conditions given in their place.

        The default encodes each branch by `encode_branch`, and "" where there is no negative.

        Args:
            prompts, negative: one per image, or None where embeddings are given.
            given: the fields of `TextConditions` by name: [B, tokens, channels] and [B, channels].
            do_cfg: whether the negative branch is needed.
            max_sequence_length: tokens of the large text encoder; None for the default.
        """

        def branch(prompts: Sequence[str] | None, prefix: str) -> TextConditions:
            names = "prompt_embeds", "pooled_prompt_embeds", "prompt_embeds_mask"
            own = {name: given[prefix + name] for name in names}
            texts = None if prompts is None else list(prompts)
            return self.encode_branch(texts, own, max_sequence_length)

        positive = branch(prompts, "")
        if not do_cfg:
            return positive
        if negative is None and given["negative_prompt_embeds"] is None:
            negative = [""] * len(positive.prompt_embeds)
        other = branch(negative, "negative_")
        return TextConditions(
            positive.prompt_embeds,
            positive.pooled_prompt_embeds,
            other.prompt_embeds,
            other.pooled_prompt_embeds,
            positive.prompt_embeds_mask,
            other.prompt_embeds_mask,
        )

    def encode_branch(
        self,
        prompts: list[str] | None,
        given: Mapping[str, Tensor | None],
        max_sequence_length: int | None,
    ) -> TextConditions:
        """One branch of `encode`, without a negative one: [B, tokens, channels] and the rest."""
        raise NotImplementedError

    def readers(self, max_sequence_length: int | None) -> list[Reader]:
        """The text encoders, as prompts come to them; the default knows CLIP and T5."""
        found = []
        for end in ("", "_2", "_3"):
            encoder, tokenizer = (
                getattr(self.pipe, f"{part}{end}", None) for part in ("text_encoder", "tokenizer")
            )
            kind = type(encoder).__name__
            if tokenizer is not None and kind.startswith("CLIP"):
                found.append(Reader("CLIP", tokenizer, self.pipe.tokenizer_max_length))
            elif tokenizer is not None and kind.startswith("T5"):
                found.append(Reader("T5", tokenizer, self.text_tokens(max_sequence_length)))
        return found

    def text_tokens(self, max_sequence_length: int | None) -> int:
        """The limit of the large text encoder, or the pipeline's default."""
        default = inspect.signature(self.pipe.__call__).parameters["max_sequence_length"].default
        return default if max_sequence_length is None else max_sequence_length

    def encoded_tokens(self, max_sequence_length: int | None) -> int:
        """The tokens of an encoded prompt of the full length."""
        return self.text_tokens(max_sequence_length)

    def latents_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """The shape that the latents have in the loop."""
        factor = self.pipe.vae_scale_factor
        return batch, self.latent_channels, height // factor, width // factor

    def prepare_latents(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        generator: Sequence[torch.Generator] | torch.Generator | None,
        latents: Tensor | None,
    ) -> Tensor:
        """Draw the noise for (batch, height, width), or move the given latents into place.

        Returns:
            [B, C, H, W], or packed [B, tokens, channels], as the family's loop takes them.
        """
        batch, height, width = shape
        device = self.pipe._execution_device
        if latents is not None:
            return latents.to(device=device, dtype=dtype)
        drawn = self.pipe.prepare_latents(
            batch, self.latent_channels, height, width, dtype, device, generator
        )
        return drawn[0] if isinstance(drawn, tuple) else drawn  # FLUX adds the places of the tokens

    def set_timesteps(self, num_inference_steps: int, latents: Tensor) -> None:
        """Set the scheduler's grid for latents [B, …]; the default leaves it to the scheduler."""
        patch = self.size_multiple // self.pipe.vae_scale_factor
        rows, columns = (side // patch for side in latents.shape[-2:])
        self._set_grid(num_inference_steps, latents, None, self._shift(rows * columns))

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        """The velocity field of a run (Algorithm 2, lines 4 to 6)."""
        raise NotImplementedError

    def unpack(self, latents: Tensor, height: int, width: int) -> Tensor:
        """The latents as the VAE decodes them, [B, C, H, W], before they are scaled."""
        return latents

    def token_grid(self, height: int, width: int) -> tuple[int, int] | None:
        """Rows and columns of tokens where the loop's latents are packed, else None."""
        return None

    def decode(
        self, latents: Tensor, height: int, width: int, output_type: str, at_once: int = SLICE
    ) -> Any:
        """Decode latents, [B, …] as `prepare_latents` makes them, by `decode_in_slices`."""

        def decode(some: Tensor) -> Tensor:
            return self.decode_latents(some, height, width)

        return decode_in_slices(self.pipe, decode, latents, output_type, at_once)

    def decode_latents(self, latents: Tensor, height: int, width: int) -> Tensor:
        """What the VAE makes of the loop's latents, [B, 3, height, width] in about [-1, 1]."""
        vae = self.pipe.vae
        latents = self.unpack(latents, height, width)
        shift = vae.config.get("shift_factor") or 0.0
        return vae.decode((latents / vae.config.scaling_factor) + shift, return_dict=False)[0]

    def text_of_call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int
    ) -> TextConditions:
        """The positive branch of so many images in a call of the transformer, for `attach`.

        The default finds it at the end of the text, where both branches are in one call.
        """
        pooled, mask = kwargs.get("pooled_projections"), kwargs.get("encoder_hidden_states_mask")
        return TextConditions(
            kwargs["encoder_hidden_states"][-batch:],
            None if pooled is None else pooled[-batch:],
            prompt_embeds_mask=None if mask is None else mask[-batch:].bool(),
        )

    def token_grid_of_call(
        self, kwargs: Mapping[str, Any], latents: Tensor
    ) -> tuple[int, int] | None:
        """Rows and columns of tokens, from a call of the transformer; for `attach`."""
        return None

    def _set_grid(
        self, steps: int, latents: Tensor, sigmas: np.ndarray[Any, Any] | None, shift: float
    ) -> None:
        scheduler = self.pipe.scheduler
        dynamic = scheduler.config.get("use_dynamic_shifting", False)
        mu = {"mu": shift} if dynamic else {}
        retrieve_timesteps(scheduler, steps, latents.device, sigmas=sigmas, **mu)

    def _shift(self, tokens: int) -> float:
        """μ of the dynamic shift of an image of so many tokens.

        Raises:
            InputError: for a configuration of the scheduler without a line to interpolate on.
        """
        config = self.pipe.scheduler.config
        ends = {
            "base_image_seq_len": config.get("base_image_seq_len", 256),
            "max_image_seq_len": config.get("max_image_seq_len", 4096),
            "base_shift": config.get("base_shift", 0.5),
            "max_shift": config.get("max_shift", self.max_shift),
        }
        try:
            return calculate_shift(tokens, *ends.values())
        except (TypeError, ArithmeticError):
            raise InputError(f"the scheduler's configuration cannot be: {ends}") from None


class PackedAdapter(Adapter):
    """A model on latents [B, rows·columns, 4C], whose tokens are places of 2×2."""

    hands_grid = True

    @property
    def latent_channels(self) -> int:
        return self.pipe.transformer.config.in_channels // 4

    def latents_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        rows, columns = self.token_grid(height, width)
        return batch, rows * columns, self.pipe.transformer.config.in_channels

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        return height // self.size_multiple, width // self.size_multiple

    def token_grid_of_call(self, kwargs: Mapping[str, Any], latents: Tensor) -> tuple[int, int]:
        """Image ids [tokens, …] number rows and columns: the last latent's are the last ones."""
        ids = kwargs["img_ids"]
        last = (ids[0] if ids.ndim == 3 else ids)[latents.shape[1] - 1]
        rows, columns = (int(place) + 1 for place in last[1:3])
        return rows, columns

    def set_timesteps(self, num_inference_steps: int, latents: Tensor) -> None:
        own_grid = self.pipe.scheduler.config.get("use_flow_sigmas", False)
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        tokens = latents.shape[1]
        self._set_grid(
            num_inference_steps,
            latents,
            None if own_grid else sigmas,
            self._steps_shift(tokens, num_inference_steps),
        )

    def _steps_shift(self, tokens: int, steps: int) -> float:
        return self._shift(tokens)


def takes_sigmas(scheduler: Any) -> bool:
    """Whether a scheduler can be handed its grid."""
    return "sigmas" in inspect.signature(scheduler.set_timesteps).parameters


def length(max_sequence_length: int | None) -> dict[str, int]:
    """The pipelines' own defaults differ, so only a given length is passed on."""
    return {} if max_sequence_length is None else {"max_sequence_length": max_sequence_length}
