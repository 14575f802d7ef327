"""The published backbones' architectures, built with random weights where they are to run.

The numbers are those of the configuration files of FLUX.1-dev, stable-diffusion-3.5-medium and
their text encoders. The weights are each class's own initialisation, in which nothing overflows in
fp16. The tokenizers know letters only: a prompt is padded to as many tokens as the real ones make,
and the embedding tables have the real sizes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from asyncdiff_cli.engine import REGISTRY, AsyncDiffError, Backbone, backbone_from_pipeline, sample
from asyncdiff_cli.engine.backbones.memory.hollow import kept_in_fp32

Config = Mapping[str, Any]

CLIP_TOKENS = 77
T5_TOKENS = 512
DEPTHS = ("num_layers", "num_single_layers", "num_hidden_layers")
"""What the configurations call a number of blocks."""


@dataclass(frozen=True)
class Architecture:
    """Everything that a pipeline of random weights is built from: arguments of each class."""

    transformer: Config
    vae: Config
    clips: tuple[Config, ...]
    """One text encoder for FLUX, two for SD3."""
    t5: Config
    scheduler: Config
    max_sequence_length: int | None = None
    """Tokens of T5's text; None for the pipeline's default."""

    def shortened(self, layers: int) -> Architecture:
        """The architecture with at most so many blocks of each kind, also in the text encoders."""
        transformer = _short(self.transformer, layers)
        if "dual_attention_layers" in transformer:
            dual = transformer["dual_attention_layers"]
            transformer["dual_attention_layers"] = tuple(n for n in dual if n < layers)
        clips = tuple(_short(clip, layers) for clip in self.clips)
        return dataclasses.replace(
            self, transformer=transformer, clips=clips, t5=_short(self.t5, layers)
        )

    def narrowed(self, layers: int = 2) -> Architecture:
        """A toy of the same kinds of blocks, for a test and for the comparison of bits."""
        flux = "num_single_layers" in self.transformer
        clip = {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "projection_dim": 16,
            "vocab_size": 600,
        }
        transformer = {
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 16 * len(self.clips),
            **({"axes_dims_rope": (4, 6, 6)} if flux else {"caption_projection_dim": 32}),
        }
        narrow = dataclasses.replace(
            self,
            transformer={**self.transformer, **transformer},
            vae={**self.vae, "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4},
            clips=tuple({**own, **clip} for own in self.clips),
            t5={
                **self.t5,
                **{"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_heads": 2},
            },
            max_sequence_length=16,
        )
        return narrow.shortened(layers)


def _short(config: Config, layers: int) -> dict[str, Any]:
    return {name: min(v, layers) if name in DEPTHS else v for name, v in config.items()}


def _vae(scaling_factor: float, shift_factor: float) -> dict[str, Any]:
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 16,
        "norm_num_groups": 32,
        "sample_size": 1024,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": scaling_factor,
        "shift_factor": shift_factor,
    }


CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": CLIP_TOKENS,
}
CLIP_BIG_G = {
    **CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "use_cache": False,
}
ARCHITECTURES = {
    "flux": Architecture(
        transformer={
            "patch_size": 1,
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
            "axes_dims_rope": (16, 56, 56),
        },
        vae=_vae(scaling_factor=0.3611, shift_factor=0.1159),
        clips=(CLIP_L,),
        t5=T5_XXL,
        scheduler={
            "shift": 3.0,
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
    ),
    "sd35": Architecture(
        transformer={
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        vae=_vae(scaling_factor=1.5305, shift_factor=0.0609),
        clips=(CLIP_L, CLIP_BIG_G),
        t5=T5_XXL,
        scheduler={"shift": 3.0},
    ),
}
"""The architectures by the names of the registry."""


def clip_tokenizer() -> CLIPTokenizer:
    """One token per letter."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {token: n for n, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CLIP_TOKENS)


def t5_tokenizer() -> T5Tokenizer:
    """One token per small letter of ASCII."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(ord("a"), ord("z") + 1))]
    scored = [(piece, -float(number)) for number, piece in enumerate(pieces)]
    return T5Tokenizer(vocab=scored, extra_ids=0, model_max_length=T5_TOKENS)


def make_models(architecture: Architecture) -> dict[str, torch.nn.Module]:
    """The pipeline's modules, on torch's default device and in its default dtype."""
    flux, ends = len(architecture.clips) == 1, clip_tokenizer()
    specials = {
        "bos_token_id": ends.bos_token_id,
        "eos_token_id": ends.eos_token_id,
        "pad_token_id": ends.pad_token_id,
    }
    clip_class: Any = CLIPTextModel if flux else CLIPTextModelWithProjection
    transformer_class: Any = FluxTransformer2DModel if flux else SD3Transformer2DModel
    encoders = [clip_class(CLIPTextConfig(**clip, **specials)) for clip in architecture.clips]
    encoders.append(T5EncoderModel(T5Config(**architecture.t5)))
    names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    return {
        "transformer": transformer_class(**architecture.transformer),
        "vae": AutoencoderKL(**architecture.vae),
        **dict(zip(names, encoders, strict=False)),
    }


def build(architecture: Architecture, device: torch.device | str, dtype: torch.dtype) -> Any:
    """The diffusers pipeline, its weights drawn where they stay: nothing is copied or cast."""
    torch.manual_seed(0)
    with torch.device(device), default_dtype(dtype):
        models = make_models(architecture)
    for model in models.values():  # tables that are computed are of another dtype or elsewhere
        settle(model.to(device).eval(), dtype)
    flux = len(architecture.clips) == 1
    pipeline_class: Any = FluxPipeline if flux else StableDiffusion3Pipeline
    tokenizers = [clip_tokenizer() for _ in architecture.clips] + [t5_tokenizer()]
    names = ("tokenizer", "tokenizer_2", "tokenizer_3")
    pipe = pipeline_class(
        scheduler=FlowMatchEulerDiscreteScheduler(**architecture.scheduler),
        **models,
        **dict(zip(names, tokenizers, strict=False)),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_backbone(
    name: str, architecture: Architecture, device: torch.device, dtype: torch.dtype, size: int
) -> Backbone:
    """The pipeline with the defaults that the registry has for the backbone of this name."""
    backbone = backbone_from_pipeline(build(architecture, device, dtype))
    length = architecture.max_sequence_length
    backbone.entry = dataclasses.replace(REGISTRY[name], size=size, max_sequence_length=length)
    return backbone


def write_configuration(pipe: Any, directory: Path) -> None:
    """A pipeline without weights."""
    pipe.save_config(directory)
    for component, part in pipe.components.items():
        if part is None:
            continue
        if hasattr(part, "save_config"):
            part.save_config(directory / component)
        else:  # of transformers, whose models keep their configuration as an object
            getattr(part, "config", part).save_pretrained(directory / component)


def write_published(name: str, directory: Path) -> None:
    """The pipeline of one of `ARCHITECTURES` in fp16, without weights."""
    write_configuration(build(ARCHITECTURES[name], "meta", torch.float16), directory)


def settle(model: Any, dtype: torch.dtype) -> None:
    """Give a model its dtype, but to what loading it keeps in fp32."""
    torch.nn.Module.to(model, dtype=dtype)
    kept = kept_in_fp32(model, dtype)
    for name, part in model.named_modules():
        if kept & set(name.split(".")):
            part.float()


def cast(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """The same pipeline in another dtype, in place."""
    for part in backbone.pipe.components.values():
        if isinstance(part, torch.nn.Module):
            settle(part, dtype)
    made = backbone_from_pipeline(backbone.pipe)
    made.entry = backbone.entry
    return made


@torch.no_grad()
def calm(backbone: Backbone, tries: int = 4) -> int:
    """Halve the transformer's matrices until one evaluation is finite; how often that was.

    Raises:
        AsyncDiffError: if it is not, after so many tries.
    """
    for halved in range(tries):
        try:
            sample(backbone, ["a cat"], num_inference_steps=1, output_type="latent")
        except AsyncDiffError:
            if halved + 1 == tries:
                raise
            for layer in backbone.pipe.transformer.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.weight.mul_(0.5)
        else:
            return halved
    raise AssertionError("unreachable")


def parameters(model: torch.nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What new parameters are made in, within the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
