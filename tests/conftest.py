"""Tiny random pipelines of diffusers' own classes, with real tokenizers, made without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
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

from asyncdiff_cli.engine import (
    Backbone,
    SampleResult,
    backbone_from_pipeline,
    load_backbone,
    sample,
)

torch.set_num_threads(1)


def clip_tokenizer() -> CLIPTokenizer:
    """One token per letter, and the same at the end of a word."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate([*words, *specials])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=48)


def t5_tokenizer() -> T5Tokenizer:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(ord("a"), ord("z") + 1))]
    vocabulary = [(piece, -float(number)) for number, piece in enumerate(pieces)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def clip_text_config() -> CLIPTextConfig:
    tokenizer = clip_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=16,
        max_position_embeddings=48,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5_encoder() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()),
            d_model=32,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            dropout_rate=0.0,
        )
    )


def vae(latent_channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=latent_channels,
        sample_size=16,
        scaling_factor=1.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def tiny_sd3() -> StableDiffusion3Pipeline:
    """Draws 16×16 by default, in steps of 4 pixels; SD3.5's own shift of 3."""
    torch.manual_seed(0)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=32,
            pos_embed_max_size=16,
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(latent_channels=16),
        text_encoder=CLIPTextModelWithProjection(clip_text_config()),
        tokenizer=clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_text_config()),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(),
        tokenizer_3=t5_tokenizer(),
    )


def tiny_flux() -> FluxPipeline:
    """Draws 16×16 by default, in steps of 4 pixels; FLUX.1-dev's dynamic shift."""
    torch.manual_seed(0)
    pipe = FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
        ),
        vae=vae(latent_channels=4),
        text_encoder=CLIPTextModel(clip_text_config()),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
    )
    pipe.default_sample_size = 8
    return pipe


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cpu")


@pytest.fixture
def sd3() -> StableDiffusion3Pipeline:
    return quiet(tiny_sd3())


@pytest.fixture
def flux() -> FluxPipeline:
    return quiet(tiny_flux())


@dataclass(frozen=True)
class Case:
    """A pipeline, and how to ask it and `sample` for the same two images."""

    pipe: Any
    stock: dict[str, Any]
    ours: dict[str, Any]

    @property
    def backbone(self) -> Backbone:
        return backbone_from_pipeline(self.pipe)

    def draw_stock(self, **options: Any) -> torch.Tensor:
        settings = {**SHARED, "generator": seeded(2), **self.stock, **options}
        return self.pipe(PROMPTS, **settings).images

    def draw(self, *policy: Any, **options: Any) -> SampleResult:
        settings = {**SHARED, "generator": seeded(2), **self.ours, **options}
        return sample(self.backbone, PROMPTS, *policy, **settings)


PROMPTS = ["a cat", "an octopus on a yellow background"]
SHARED = {"num_inference_steps": 4, "output_type": "pt"}
CASES = ("sd3", "sd3-plain", "flux", "flux-cfg", "mini")


def seeded(count: int) -> list[torch.Generator]:
    """One generator per image."""
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def make_case(name: str) -> Case:
    size = {"height": 16, "width": 24}
    if name == "sd3":
        both = {**size, "guidance_scale": 5.0}
        return Case(quiet(tiny_sd3()), both, both)
    if name == "sd3-plain":
        both = {**size, "guidance_scale": 1.0}
        return Case(quiet(tiny_sd3()), both, both)
    if name == "flux":
        both = {**size, "guidance_scale": 5.0}
        return Case(quiet(tiny_flux()), both, both)
    if name == "flux-cfg":
        both = {**size, "guidance_scale": 3.5, "true_cfg_scale": 2.0}
        stock = {**both, "negative_prompt": ["a dog", "a dog"]}
        return Case(quiet(tiny_flux()), stock, {**both, "negative_prompt": "a dog"})
    both = {"guidance_scale": 5.0, "max_sequence_length": 8}
    return Case(quiet(load_backbone("mini").pipe), both, both)


@pytest.fixture(scope="session")
def _cases() -> dict[str, Case]:
    return {}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, _cases: dict[str, Case]) -> Case:
    """Each pipeline in turn; shared by the session, so leave it as it is."""
    if request.param not in _cases:
        _cases[request.param] = make_case(request.param)
    return _cases[request.param]
