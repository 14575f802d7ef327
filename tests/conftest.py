"""Tiny random pipelines of diffusers' own classes, with real tokenizers, made without a network."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from huggingface_hub import constants
from hypothesis import settings as hypothesis_settings
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
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
from asyncdiff_cli.engine import hub as engine_hub
from asyncdiff_cli.engine.policies import specs, table
from asyncdiff_cli.engine.rewards.mini_judge import Config
from asyncdiff_cli.engine.rewards.world.judge import JudgeNet
from tests.helpers.hub import Hub, running_hub
from tests.helpers.rounding import terms

hypothesis_settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis_settings.load_profile("untimed")
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


@pytest.fixture
def hub(monkeypatch, tmp_path_factory) -> Iterator[Hub]:
    """A stand-in for the hub, whose cache is empty, with the token of alice."""
    caches = engine_hub._answers, specs.load_learned, table._download
    with running_hub() as stand_in:
        template = stand_in.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage has no stand-in
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
        monkeypatch.setenv("HF_TOKEN", "hf_alice")
        for cache in caches:
            cache.cache_clear()
        yield stand_in
        for cache in caches:
            cache.cache_clear()


def pytest_collection_finish() -> None:
    """Leave the half a million objects of the imports out of every garbage collection."""
    gc.collect()
    gc.freeze()


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


SD3: dict[str, int] = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "joint_attention_dim": 32,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 32,
    "pos_embed_max_size": 16,
}
"""The sizes of a tiny transformer of SD3's kind."""


def tiny_sd3(layers: int = 1) -> StableDiffusion3Pipeline:
    """Draws 16×16 by default, in steps of 4 pixels; SD3.5's own shift of 3.

    Its last block leaves the text, and what a control net says, alone.
    """
    torch.manual_seed(0)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(num_layers=layers, qk_norm="rms_norm", **SD3),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(latent_channels=16),
        text_encoder=CLIPTextModelWithProjection(clip_text_config()),
        tokenizer=clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_text_config()),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(),
        tokenizer_3=t5_tokenizer(),
    )


FLUX_BLOCKS: dict[str, int] = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
}
"""The sizes of a tiny transformer of FLUX's kind, and of its relatives'."""
FLUX: dict[str, int] = {
    "patch_size": 1,
    **FLUX_BLOCKS,
    "pooled_projection_dim": 16,
    "guidance_embeds": True,
}


def tiny_flux() -> FluxPipeline:
    """Draws 16×16 by default, in steps of 4 pixels; FLUX.1-dev's dynamic shift."""
    torch.manual_seed(0)
    pipe = FluxPipeline(
        transformer=FluxTransformer2DModel(in_channels=16, axes_dims_rope=(4, 6, 6), **FLUX),
        scheduler=dynamic_shift(),
        vae=vae(latent_channels=4),
        text_encoder=CLIPTextModel(clip_text_config()),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
    )
    pipe.default_sample_size = 8
    return pipe


CHAT = """{% for message in messages if message.role == "user" %}
{{- message.content if message.content is string else message.content[0].text }}
{% endfor %}"""
"""What the user says, and a new line: so that also the empty prompt has a token."""


def chat_tokenizer() -> Qwen2Tokenizer:
    """One token per byte."""
    letters = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(letters)}
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], chat_template=CHAT)


def language_model(layers: int, width: int) -> dict[str, Any]:
    return {
        "vocab_size": len(chat_tokenizer()),
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def dynamic_shift(**settings: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, **settings
    )


def flux2_parts(prompt_channels: int, guidance_embeds: bool) -> dict[str, Any]:
    """What [dev] and [klein] share; 16×16 by default, in steps of 4 pixels."""
    autoencoder = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    autoencoder.bn.running_mean.normal_()
    autoencoder.bn.running_var.uniform_(0.5, 2)
    return {
        "transformer": Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=prompt_channels,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guidance_embeds,
        ),
        "scheduler": dynamic_shift(),
        "vae": autoencoder,
        "tokenizer": chat_tokenizer(),
    }


def tiny_flux2() -> Flux2Pipeline:
    """With layers enough for the pipeline to read the 10th, 20th and 30th."""
    torch.manual_seed(0)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    config = Mistral3Config(
        text_config={"model_type": "mistral", "head_dim": 4, **language_model(30, 8)},
        vision_config={"model_type": "pixtral", **vision},
        image_token_index=1,
    )
    pipe = Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(config).eval(), **flux2_parts(24, True)
    )
    pipe.default_sample_size = 8
    return pipe


def tiny_flux2_klein() -> Flux2KleinPipeline:
    """A base model, whose guidance is classifier-free; it reads the 9th, 18th and 27th layer."""
    torch.manual_seed(0)
    config = Qwen3Config(head_dim=4, **language_model(27, 8))
    pipe = Flux2KleinPipeline(
        text_encoder=Qwen3ForCausalLM(config).eval(), **flux2_parts(24, False)
    )
    pipe.default_sample_size = 8
    return pipe


def tiny_qwen_image() -> QwenImagePipeline:
    """Draws 16×16 by default, in steps of 4 pixels; Qwen-Image's own shift and last time."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    vision = {"hidden_size": 16, "intermediate_size": 16, "depth": 1, "num_heads": 2}
    config = Qwen2_5_VLConfig(
        text_config={**language_model(1, 16), "rope_parameters": rope},
        vision_config={**vision, "out_hidden_size": 16},
    )
    pipe = QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=0.9,
            max_image_seq_len=8192,
            shift_terminal=0.02,
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.5, 0.7, 1.0, 2.0],
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=chat_tokenizer(),
    )
    pipe.default_sample_size = 8
    return pipe


def tiny_z_image() -> ZImagePipeline:
    """In steps of 4 pixels; Z-Image's own shift, and no default size but 1024."""
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[512, 64, 64],
    )
    for padding in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(padding)
    return ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(latent_channels=4),
        text_encoder=Qwen3Model(Qwen3Config(head_dim=8, **language_model(2, 16))).eval(),
        tokenizer=chat_tokenizer(),
    )


TINY = {
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "flux2": tiny_flux2,
    "flux2-klein": tiny_flux2_klein,
    "qwen-image": tiny_qwen_image,
    "z-image": tiny_z_image,
}
"""A tiny pipeline of each family."""


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cpu")


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of tiny pipelines by family; leave them as they are."""
    paths = {}
    for name, make in (("sd3", tiny_sd3), ("flux", tiny_flux)):
        paths[name] = tmp_path_factory.mktemp(name)
        make().save_pretrained(paths[name])
    return paths


@pytest.fixture(scope="session")
def judge_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow judge of mini's world with random weights, as `python -m mini export` writes it."""
    path = tmp_path_factory.mktemp("mini_judge")
    torch.manual_seed(0)
    widths = (8, 8, 16, 16)
    (path / "config.json").write_text(Config.of(widths).model_dump_json())
    save_file(JudgeNet(widths).state_dict(), path / "model.safetensors")
    return path


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

    @property
    def terms(self) -> int:
        """What is added up on the way to an image: four evaluations, and the decoder."""
        pipe = self.pipe
        return 4 * terms(pipe.transformer) + terms(pipe.vae.decoder)

    def draw_stock(self, **options: Any) -> torch.Tensor:
        settings = {**SHARED, "generator": seeded(2), **self.stock, **options}
        return self.pipe(prompt=[*PROMPTS], **settings).images  # FLUX.2 has `image` first

    def stock_latents(self) -> torch.Tensor:
        """The last ones as the pipeline holds them. [klein] returns others as "latent"."""
        kept = {}

        def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            kept.update(tensors)
            return tensors

        self.draw_stock(output_type="latent", callback_on_step_end=keep)
        return kept["latents"]

    def encode(self, prompts: Sequence[str] | None = None) -> tuple[torch.Tensor, ...]:
        """What SD3's or FLUX.1's text encoders say of the prompts."""
        others = [None] * (2 if "text_encoder_3" in self.pipe.components else 1)
        length = self.ours["max_sequence_length"]
        return self.pipe.encode_prompt(prompts or PROMPTS, *others, max_sequence_length=length)

    def draw(self, *policy: Any, **options: Any) -> SampleResult:
        settings = {**SHARED, "generator": seeded(2), **self.ours, **options}
        return sample(self.backbone, PROMPTS, *policy, **settings)


PROMPTS = ["a cat", "an octopus on a yellow background"]
SHARED = {"num_inference_steps": 4, "output_type": "pt"}
LATER = ("flux2", "flux2-klein", "qwen-image", "z-image")
CASES = ("sd3", "sd3-plain", "flux", "flux-cfg", "mini", *LATER)


def seeded(count: int) -> list[torch.Generator]:
    """One generator per image."""
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def make_case(name: str) -> Case:
    size: dict[str, Any] = {"height": 16, "width": 24}
    if name == "qwen-image-plain":
        return Case(quiet(tiny_qwen_image()), size, size)
    if name == "qwen-image":
        both = {**size, "true_cfg_scale": 3.0}
        stock = {**both, "negative_prompt": ["a dog", "a dog"]}
        return Case(quiet(tiny_qwen_image()), stock, {**both, "negative_prompt": "a dog"})
    size["max_sequence_length"] = 36  # the others pad to it
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
    if name in ("flux2", "flux2-klein", "z-image", "z-image-plain"):
        guidance = 0.0 if name == "z-image-plain" else 3.0
        both = {**size, "guidance_scale": guidance}
        return Case(quiet(TINY[name.removesuffix("-plain")]()), both, both)
    both = {"height": 32, "width": 32, "guidance_scale": 5.0, "max_sequence_length": 8}
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
