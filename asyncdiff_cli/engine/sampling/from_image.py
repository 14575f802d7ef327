"""Images drawn from an image or with a control net: by diffusers' own pipelines, in `attach`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from asyncdiff_cli.engine.backbones.adapters import Guidance
from asyncdiff_cli.engine.backbones.adapters.encoding import warn_of_cuts
from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.image_pipelines import EDITING
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.sampling.attach import Trace, attach
from asyncdiff_cli.engine.sampling.text_input import warn_of_no_effect
from asyncdiff_cli.engine.text import one_line


def sample_from_image(
    backbone: Backbone,
    image: Image.Image | None,
    prompts: Sequence[str],
    generator: Sequence[torch.Generator],
    *,
    policy: Policy,
    gamma: float,
    num_inference_steps: int,
    guidance_scale: float,
    height: int,
    width: int,
    negative_prompt: str | None = None,
    max_sequence_length: int | None = None,
    strength: float | None = None,
    control_image: Image.Image | None = None,
    control_scale: float | None = None,
    on_step: Callable[[StepState], None] | None = None,
) -> tuple[list[Image.Image], Trace]:
    """Draw an image per prompt from one image, or with a control net that is shown one.

    Synchronous ones are the pipeline's, to the bit.

    Args:
        backbone: one that was opened as `Outline.for_image` or `Outline.with_control_net` says.
        image, control_image: of the width and height that are drawn, RGB; None for none.
        generator: one per image.
        strength: the share of the steps that is run on the noisy image, in (0, 1]; None for a
            model that edits.
        control_scale: what the net's residuals are multiplied by; None for 1.
        guidance_scale, negative_prompt, max_sequence_length: as of `sample`; None is the default.

    Returns:
        The images, and what they were conditioned on.

    Raises:
        InputError: for what the pipeline refuses, and as `attach`.
        AsyncDiffError: as `attach`.
    """
    pipe, entry, guidance = backbone.pipe, backbone.entry, Guidance(guidance_scale, guidance_scale)
    negative = entry.negative_prompt if negative_prompt is None else negative_prompt
    negatives = None if negative is None else [negative] * len(prompts)
    if not backbone.adapter.does_cfg(guidance, negatives is not None):
        warn_of_no_effect(entry, negatives or ())
        negatives = None
    given = {
        "prompt": list(prompts),
        # where each image has a generator of its own, what is encoded has an image for each
        "image": image if type(pipe) in EDITING else image and [image] * len(prompts),
        "strength": strength,
        "control_image": control_image,
        "controlnet_conditioning_scale": control_scale,
        "negative_prompt": negatives,
        "generator": list(generator),
        "num_inference_steps": num_inference_steps,
        "max_sequence_length": max_sequence_length,
        "height": height,
        "width": width,
        "max_area": height * width,
        "_auto_resize": False,
        **_scales(pipe, guidance_scale),
    }
    warn_of_cuts(backbone.adapter.readers(max_sequence_length), [*prompts, *(negatives or ())])
    taken = inspect.signature(pipe.__call__).parameters
    call = {name: v for name, v in given.items() if name in taken and v is not None}
    with _drawing_from(generator[0], pipe), attach(pipe, policy, gamma, on_step) as trace:
        try:
            images = pipe(**call).images
        except ValueError as error:  # as for an image too small or too narrow for FLUX.2
            if isinstance(error, InputError):
                raise
            kind = type(pipe).__name__
            raise InputError(f"a {kind} cannot draw from this: {one_line(error)}") from error
    return images, trace


def _scales(pipe: Any, scale: float) -> dict[str, float]:
    """The guidance by the names under which a pipeline takes it; one without the embedded kind has
    None for its default."""
    own = inspect.signature(pipe.__call__).parameters
    embedded = {} if own["guidance_scale"].default is None else {"guidance_scale": scale}
    return {**embedded, "true_cfg_scale": scale}


@contextmanager
def _drawing_from(generator: torch.Generator, pipe: Any) -> Iterator[None]:
    """What draws from torch's own generator, as SD3's pipeline encodes a control image, repeats."""
    device = pipe._execution_device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        yield
