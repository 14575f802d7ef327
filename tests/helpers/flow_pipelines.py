"""Tiny random pipelines of diffusers' flow classes, each with a call that it draws by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from asyncdiff_cli.engine.drawing.provenance import Provenance
from tests.conftest import (
    FLUX,
    FLUX_BLOCKS,
    SD3,
    dynamic_shift,
    t5_encoder,
    t5_tokenizer,
    tiny_flux,
    tiny_flux2,
    tiny_flux2_klein,
    tiny_qwen_image,
    tiny_sd3,
    tiny_z_image,
    vae,
)

STEPS = 4
SIZE = {"height": 16, "width": 16}
PROMPT = {"prompt": "a cat", **SIZE}
STRENGTH = 0.75
"""Of image-to-image: the first of four steps is left out."""


class Drawing(NamedTuple):
    """A pipeline, and what it is called with beside steps, seed and output."""

    pipe: Any
    settings: dict[str, Any]


def picture(seed: int = 0, side: int = 16) -> Image.Image:
    values = np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def stock_image(pipe: Any, record: Provenance, **inputs: Any) -> Image.Image:
    """What a pipeline draws by itself of a cat from seed 0, in 3 steps of 16 pixels."""
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt=["a cat"],
        num_inference_steps=3,
        guidance_scale=record.guidance_scale,
        generator=[torch.Generator().manual_seed(0)],
        height=16,
        width=16,
        max_sequence_length=record.max_sequence_length or 256,
        **inputs,
    ).images[0]


def mask() -> Image.Image:
    """The upper half."""
    values = np.zeros((16, 16), np.uint8)
    values[:8] = 255
    return Image.fromarray(values)


TEXT = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "image_encoder")


def textless(class_name: str, transformer: Any, autoencoder: Any, **components: Any) -> Any:
    """A pipeline of Euler without text encoders: what it draws by are embeddings."""
    parts = {**dict.fromkeys(TEXT), "scheduler": euler(), **components}
    return made(class_name, transformer=transformer, vae=autoencoder, **parts)


def embeds(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))


def with_masks(channels: int, mask: str = "attention_mask", tokens: int = 5) -> dict[str, Any]:
    """Embeddings and masks of both branches, and what the masks' argument ends in."""
    text = {}
    for seed, prefix in enumerate(("prompt", "negative_prompt")):
        text[f"{prefix}_embeds"] = embeds(tokens, channels, seed=seed)
        text[f"{prefix}_{mask}"] = torch.ones(1, tokens, dtype=torch.long)
    return text


def euler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def made(class_name: str, **components: Any) -> Any:
    """A pipeline of some components; those that the class does not take are left out."""
    kind = getattr(diffusers, class_name)
    wanted = {*kind._get_signature_types()}
    return kind(**{name: part for name, part in components.items() if name in wanted})


def noisy(*modules: torch.nn.Module) -> None:
    """A control net's way out is zero until it is trained."""
    for module in modules:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.1)


def variant(class_name: str) -> Drawing:
    """A class that takes just what another one is made of."""
    base, settings = VARIANTS[class_name]
    pipe = base()
    if type(pipe).__name__ != class_name:
        pipe = made(class_name, **pipe.components)
    return Drawing(pipe, {**PROMPT, **settings})


IMAGE = {"image": picture(), "strength": STRENGTH}
INPAINT = {**IMAGE, "mask_image": mask()}
SHORT = {"max_sequence_length": 36}
NEGATIVE = {"negative_prompt": "a dog"}
EXACT = {"_auto_resize": False, "max_area": 256}
VARIANTS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "StableDiffusion3Pipeline": (tiny_sd3, {}),
    "StableDiffusion3Img2ImgPipeline": (tiny_sd3, IMAGE),
    "StableDiffusion3InpaintPipeline": (tiny_sd3, INPAINT),
    "FluxPipeline": (tiny_flux, {}),
    "FluxImg2ImgPipeline": (tiny_flux, IMAGE),
    "FluxInpaintPipeline": (tiny_flux, INPAINT),
    "FluxKontextPipeline": (tiny_flux, {"image": picture(), **EXACT}),
    "FluxKontextInpaintPipeline": (tiny_flux, {**INPAINT, **EXACT}),
    "Flux2Pipeline": (tiny_flux2, SHORT),
    "Flux2KleinPipeline": (tiny_flux2_klein, SHORT),
    "Flux2KleinInpaintPipeline": (tiny_flux2_klein, {**INPAINT, **SHORT}),
    "Flux2KleinKVPipeline": (tiny_flux2_klein, SHORT),
    "QwenImagePipeline": (tiny_qwen_image, NEGATIVE),
    "QwenImageImg2ImgPipeline": (tiny_qwen_image, {**IMAGE, **NEGATIVE}),
    "QwenImageInpaintPipeline": (tiny_qwen_image, {**INPAINT, **NEGATIVE}),
    "ZImagePipeline": (tiny_z_image, SHORT),
    "ZImageImg2ImgPipeline": (tiny_z_image, {**IMAGE, **SHORT}),
    "ZImageInpaintPipeline": (tiny_z_image, {**INPAINT, **SHORT}),
}
"""Classes on the components of the families that the project knows."""


def sd3_control(class_name: str, **settings: Any) -> Drawing:
    base = tiny_sd3(layers=2)
    net = diffusers.SD3ControlNetModel(
        num_layers=1,
        **SD3,
        extra_conditioning_channels=int("control_mask" in settings),
    )
    noisy(net.controlnet_blocks)
    given = {"control_image": picture(1), "controlnet_conditioning_scale": 0.5, **settings}
    return Drawing(made(class_name, **base.components, controlnet=net), {**PROMPT, **given})


def perturbed(class_name: str, **settings: Any) -> Drawing:
    """SD3 with perturbed-attention guidance."""
    parts = {**tiny_sd3(layers=2).components, "pag_applied_layers": ["blocks.0"]}
    kind = getattr(diffusers, class_name)
    for absent in ("image_encoder", "feature_extractor"):
        parts.pop(absent)
    return Drawing(kind(**parts), {**PROMPT, **settings})


def flux_channels(class_name: str, in_channels: int, **settings: Any) -> Drawing:
    """FLUX whose transformer takes another picture beside the latents."""
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=in_channels, out_channels=16, axes_dims_rope=(4, 6, 6), **FLUX
    )
    parts = {**tiny_flux().components, "transformer": transformer}
    return Drawing(made(class_name, **parts), {**PROMPT, **settings})


def flux_control(class_name: str, **settings: Any) -> Drawing:
    net = diffusers.FluxControlNetModel(in_channels=16, axes_dims_rope=[4, 6, 6], **FLUX)
    noisy(net.controlnet_blocks, net.controlnet_single_blocks)
    pipe = made(class_name, **tiny_flux().components, controlnet=net)
    return Drawing(pipe, {**PROMPT, "control_image": picture(1), **settings})


def on_flux_parts(class_name: str, transformer: Any, scheduler: Any, **settings: Any) -> Drawing:
    """A relative of FLUX's with T5 alone."""
    base = tiny_flux()
    text = {"text_encoder": base.text_encoder_2, "tokenizer": base.tokenizer_2}
    if "prompt_embeds" in settings:
        text, wanted = dict.fromkeys(text), SIZE
    else:
        wanted = {**PROMPT, "max_sequence_length": 16}
    pipe = made(class_name, scheduler=scheduler, vae=base.vae, transformer=transformer, **text)
    return Drawing(pipe, {**wanted, **settings})


def chroma(class_name: str, **settings: Any) -> Drawing:
    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        **FLUX_BLOCKS,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=64,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    return on_flux_parts(class_name, transformer, euler(), **settings)


def ovis(class_name: str) -> Drawing:
    transformer = diffusers.OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        **FLUX_BLOCKS,
        axes_dims_rope=(4, 6, 6),
    )
    text = {"prompt_embeds": embeds(6, 32), "guidance_scale": 1.0}
    return on_flux_parts(class_name, transformer, dynamic_shift(), **text)


def bria(class_name: str) -> Drawing:
    transformer = diffusers.BriaTransformer2DModel(
        in_channels=16,
        **FLUX_BLOCKS,
        axes_dims_rope=[0, 8, 8],
    )
    return on_flux_parts(class_name, transformer, euler(), **NEGATIVE)


def qwen_control(class_name: str, **settings: Any) -> Drawing:
    net = diffusers.QwenImageControlNetModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
        extra_condition_channels=4 * ("control_mask" in settings),
    )
    noisy(net.controlnet_blocks)
    pipe = made(class_name, **tiny_qwen_image().components, controlnet=net)
    return Drawing(pipe, {**PROMPT, **NEGATIVE, "control_image": picture(1), **settings})


def qwen_edit(class_name: str, **settings: Any) -> Drawing:
    """Without the text encoder, which reads the picture as well."""
    pipe = made(class_name, **tiny_qwen_image().components, processor=None)
    return Drawing(pipe, {**SIZE, **with_masks(16, "embeds_mask"), **settings})


def z_image_control(class_name: str) -> Drawing:
    net = diffusers.ZImageControlNetModel(
        control_layers_places=[0],
        control_in_dim=4,
        dim=32,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )
    pipe = made(class_name, **tiny_z_image().components, controlnet=net)
    return Drawing(pipe, {**PROMPT, **SHORT, "control_image": picture(1)})


def ltx(class_name: str, scheduler: Any, **settings: Any) -> Drawing:
    layers, blocks = (1, 1, 1, 1, 1), (8, 8, 8, 8)
    autoencoder = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=blocks,
        decoder_block_out_channels=blocks,
        layers_per_block=layers,
        decoder_layers_per_block=layers,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=1,
    )
    autoencoder.use_framewise_encoding = autoencoder.use_framewise_decoding = False
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=32,
    )
    pipe = made(
        class_name,
        scheduler=scheduler,
        vae=autoencoder,
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )
    clip = {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 16}
    return Drawing(pipe, {"prompt": "a cat", **clip, **settings})


def wan(class_name: str, in_channels: int = 4, **settings: Any) -> Drawing:
    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=4,
        text_dim=32,
        freq_dim=64,
        ffn_dim=16,
        num_layers=1,
    )
    pipe = textless(class_name, transformer, autoencoder, image_processor=None)
    text = {"prompt_embeds": embeds(6, 32), "negative_prompt_embeds": embeds(6, 32, seed=2)}
    return Drawing(pipe, {**SIZE, **text, **settings})


def hunyuan_video(class_name: str) -> Drawing:
    autoencoder = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    pipe = textless(class_name, transformer, autoencoder)
    given = {
        "prompt_embeds": embeds(5, 16),
        "pooled_prompt_embeds": embeds(8),
        "prompt_attention_mask": torch.ones(1, 5),
        "num_frames": 9,
    }
    return Drawing(pipe, {**SIZE, **given})


def hunyuan_image(class_name: str) -> Drawing:
    autoencoder = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=4,
        sample_size=16,
        scaling_factor=1.0,
    )
    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        guidance_embeds=True,
        text_embed_dim=16,
        text_embed_2_dim=16,
        rope_axes_dim=(4, 4),
    )
    pipe = textless(class_name, transformer, autoencoder)
    given: dict[str, Any] = {}
    for seed, suffix in enumerate(("", "_2")):
        given[f"prompt_embeds{suffix}"] = embeds(5, 16, seed=seed)
        given[f"prompt_embeds_mask{suffix}"] = torch.ones(1, 5)
    return Drawing(pipe, {**SIZE, **given})


def lumina2(class_name: str) -> Drawing:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(64, 32, 32),
        cap_feat_dim=16,
    )
    pipe = textless(class_name, transformer, vae(4))
    return Drawing(pipe, {**SIZE, **with_masks(16)})


def aura_flow(class_name: str) -> Drawing:
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        out_channels=4,
        pos_embed_max_size=64,
    )
    pipe = textless(class_name, transformer, vae(4), tokenizer=t5_tokenizer())
    return Drawing(pipe, {**SIZE, **with_masks(32)})


def cogview4(class_name: str) -> Drawing:
    transformer = diffusers.CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=32,
        sample_size=8,
        rope_axes_dim=(4, 4),
    )
    scheduler = dynamic_shift(time_shift_type="linear")
    pipe = textless(class_name, transformer, vae(4), scheduler=scheduler)
    given = {"prompt_embeds": embeds(16, 32), "negative_prompt_embeds": embeds(16, 32, seed=2)}
    return Drawing(pipe, {**SIZE, **given})


def mochi(class_name: str) -> Drawing:
    transformer = diffusers.MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=32,
        time_embed_dim=4,
    )
    autoencoder = diffusers.AutoencoderKLMochi(
        latent_channels=12,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    pipe = made(
        class_name,
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=autoencoder,
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
        transformer=transformer,
    )
    return Drawing(pipe, {**PROMPT, "num_frames": 7, "max_sequence_length": 16})


CONTROL = {"control_image": picture(1)}
MAKERS: dict[str, Callable[[str], Drawing]] = {
    **dict.fromkeys(VARIANTS, variant),
    "StableDiffusion3ControlNetPipeline": sd3_control,
    "StableDiffusion3ControlNetInpaintingPipeline": lambda n: sd3_control(n, control_mask=mask()),
    "StableDiffusion3PAGPipeline": perturbed,
    "StableDiffusion3PAGImg2ImgPipeline": lambda n: perturbed(n, **IMAGE),
    "FluxControlPipeline": lambda n: flux_channels(n, 32, **CONTROL),
    "FluxControlImg2ImgPipeline": lambda n: flux_channels(n, 32, **CONTROL, **IMAGE),
    "FluxControlInpaintPipeline": lambda n: flux_channels(n, 32, **CONTROL, **INPAINT),
    "FluxFillPipeline": lambda n: flux_channels(n, 48, image=picture(), mask_image=mask()),
    "FluxControlNetPipeline": flux_control,
    "FluxControlNetImg2ImgPipeline": lambda n: flux_control(n, **IMAGE),
    "FluxControlNetInpaintPipeline": lambda n: flux_control(n, **INPAINT),
    "ChromaPipeline": chroma,
    "ChromaImg2ImgPipeline": lambda n: chroma(n, **IMAGE),
    "QwenImageControlNetPipeline": qwen_control,
    "QwenImageControlNetInpaintPipeline": lambda n: qwen_control(n, control_mask=mask()),
    "QwenImageEditPipeline": lambda n: qwen_edit(n, image=picture()),
    "QwenImageEditInpaintPipeline": lambda n: qwen_edit(n, **INPAINT),
    "QwenImageEditPlusPipeline": lambda n: qwen_edit(n, image=[picture(), picture(1)]),
    "ZImageControlNetPipeline": z_image_control,
    "HunyuanImagePipeline": hunyuan_image,
    "Lumina2Pipeline": lumina2,
    "AuraFlowPipeline": aura_flow,
    "OvisImagePipeline": ovis,
    "BriaPipeline": bria,
    "CogView4Pipeline": cogview4,
    "LTXPipeline": lambda n: ltx(n, dynamic_shift()),
    "LTXImageToVideoPipeline": lambda n: ltx(n, dynamic_shift(), image=picture(0, 32)),
    "LTXConditionPipeline": lambda n: ltx(n, euler(), image=picture(0, 32)),
    "WanPipeline": lambda n: wan(n, num_frames=5),
    "WanImageToVideoPipeline": lambda n: wan(n, 12, num_frames=5, image=picture()),
    "WanVideoToVideoPipeline": lambda n: wan(n, video=[*map(picture, range(5))], strength=STRENGTH),
    "HunyuanVideoPipeline": hunyuan_video,
    "MochiPipeline": mochi,
}
"""By class, in the order of the table in docs/pipelines.md."""
