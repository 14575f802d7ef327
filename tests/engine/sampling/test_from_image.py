"""Images drawn from an image are those of diffusers' own pipeline, and are conditioned as asked."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxControlPipeline, FluxKontextPipeline

from asyncdiff_cli.engine import (
    FixedDeviation,
    InputError,
    Synchronous,
    backbone_from_pipeline,
    sample,
)
from asyncdiff_cli.engine.backbones.adapters import ADAPTERS
from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.image_pipelines import control_pipeline, image_pipeline
from asyncdiff_cli.engine.backbones.registry import anonymous_entry
from asyncdiff_cli.engine.sampling.from_image import sample_from_image
from tests.conftest import TINY, quiet, seeded
from tests.helpers.flow_pipelines import MAKERS, picture

PROMPTS = ["a cat", "a dog"]
SCALE = {"guidance_scale": 4.0}
TRUE_CFG = {"true_cfg_scale": 4.0, "negative_prompt": ["red"] * 2}
RED = {"negative_prompt": "red"}
SHORT = {"max_sequence_length": 36}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sd3": ({}, SCALE),
    "flux": ({}, SCALE),
    "flux-cfg": (RED, {**SCALE, **TRUE_CFG}),
    "qwen-image": (RED, TRUE_CFG),
    "z-image": (SHORT, {**SCALE, **SHORT}),
    "kontext": ({}, {**SCALE, "max_area": 256, "_auto_resize": False}),
    "flux2": (SHORT, {**SCALE, **SHORT}),
    "flux2-klein": (SHORT, {**SCALE, **SHORT}),
}
"""What is asked for, and what the pipeline is called with for it."""
EDITING = ("kontext", "flux2", "flux2-klein")


def opened(name: str) -> Backbone:
    """A tiny backbone, opened with the pipeline that draws from an image."""
    base = TINY["flux" if name == "kontext" else name.removesuffix("-cfg")]()
    kind = FluxKontextPipeline if name == "kontext" else type(base)
    config = {"is_distilled": False} if name == "flux2-klein" else {}
    pipe = quiet(image_pipeline(kind)(**base.components, **config))
    adapter = ADAPTERS[kind](pipe)
    return Backbone(pipe, anonymous_entry(name, adapter.family), adapter, pipe.transformer.dtype)


@pytest.mark.parametrize("name", CASES)
def test_synchronous_images_are_the_pipeline_s_to_the_bit(name):
    asked, call = CASES[name]
    backbone, edits = opened(name), name in EDITING
    side = 64 if name.startswith("flux2") else 16  # the smallest image that FLUX.2 takes
    image = picture(side=side)
    shared = {"num_inference_steps": 4, "height": side, "width": side}
    shared |= {} if edits else {"strength": 0.75}

    def draw(image=image, policy=None, on_step=None):
        images, trace = sample_from_image(
            backbone,
            image,
            PROMPTS,
            seeded(2),
            policy=policy or Synchronous(),
            gamma=1.0,
            on_step=on_step,
            **SCALE,
            **shared,
            **asked,
        )
        return np.stack(images), trace

    stock = backbone.pipe(
        prompt=[*PROMPTS],  # a list that Z-Image writes into
        image=image if edits else [image] * 2,
        generator=seeded(2),
        **shared,
        **call,
    )
    ours, trace = draw()
    assert np.array_equal(ours, np.stack(stock.images))
    evaluations = 4 if edits else 3
    assert trace.cond_sigmas.shape == (2, evaluations)
    assert not trace.deviations.any()

    seen = []
    moved, trace = draw(policy=FixedDeviation(0.5), on_step=seen.append)
    assert trace.deviations.tolist() == [[0.5] * (evaluations - 1)] * 2
    assert [state.index for state in seen] == list(range(evaluations))
    assert not np.array_equal(ours, moved)
    assert not np.array_equal(ours, draw(picture(1, side))[0])


CONTROLLED = {
    "sd3": ("StableDiffusion3ControlNetPipeline", {}, SCALE),
    "flux": ("FluxControlNetPipeline", {}, SCALE),
    "qwen-image": ("QwenImageControlNetPipeline", RED, TRUE_CFG),
}


@pytest.mark.parametrize("name", CONTROLLED)
def test_a_control_net_draws_as_its_pipeline_does_to_the_bit(name):
    kind, asked, call = CONTROLLED[name]
    pipe = quiet(MAKERS[kind](kind).pipe)
    adapter = ADAPTERS[type(TINY[name]())](pipe)
    backbone = Backbone(pipe, anonymous_entry(name, adapter.family), adapter, torch.float32)
    shared = {"num_inference_steps": 2, "height": 16, "width": 16}

    def draw(policy, scale):
        images, trace = sample_from_image(
            backbone,
            None,
            PROMPTS,
            seeded(2),
            policy=policy,
            gamma=1.0,
            control_image=picture(),
            control_scale=scale,
            **SCALE,
            **shared,
            **asked,
        )
        return np.stack(images), trace

    torch.manual_seed(0)  # SD3's pipeline encodes the control image with torch's own generator
    stock = pipe(
        prompt=[*PROMPTS],
        control_image=picture(),
        controlnet_conditioning_scale=0.7,
        generator=seeded(2),
        **shared,
        **call,
    )
    ours, _ = draw(Synchronous(), 0.7)
    assert np.array_equal(ours, np.stack(stock.images))
    assert not np.array_equal(ours, draw(Synchronous(), 0.0)[0])
    moved, trace = draw(FixedDeviation(0.5), 0.7)
    assert trace.deviations.tolist() == [[0.5]] * 2
    assert not np.array_equal(ours, moved)


def test_kontext_without_an_image_is_its_pipeline():
    pipe = opened("kontext").pipe
    shared = {"num_inference_steps": 2, "height": 16, "width": 16, "output_type": "pt", **SCALE}
    stock = pipe(prompt=PROMPTS, generator=seeded(2), max_area=256, **shared).images
    ours = sample(backbone_from_pipeline(pipe), PROMPTS, generator=seeded(2), **shared).images
    assert torch.equal(ours, stock)


def test_a_pipeline_that_draws_from_no_image():
    with pytest.raises(InputError, match="a FluxControlPipeline draws from no image: leave out"):
        image_pipeline(FluxControlPipeline)


def test_a_pipeline_that_takes_no_control_net():
    with pytest.raises(InputError, match="a FluxKontextPipeline takes no control net: leave out"):
        control_pipeline(FluxKontextPipeline)
