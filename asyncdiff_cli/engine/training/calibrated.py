"""A schedule that is calibrated on a backbone's own pictures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.adapters import Guidance
from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.checks import check_steps
from asyncdiff_cli.engine.drawing.canvas import Canvas, joined
from asyncdiff_cli.engine.drawing.provenance import versions
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.prompts.prompt_set import ALL, PromptSet
from asyncdiff_cli.engine.sampling.loop import denoising
from asyncdiff_cli.engine.training.calibration import (
    Calibration,
    Images,
    Search,
    Settled,
    deviations_of,
)

BATCH_SIZE = 8


@torch.no_grad()
def calibrated_schedule(
    backbone: Backbone,
    prompts: Sequence[str],
    num_inference_steps: int | None = None,
    *,
    guidance_scale: float | None = None,
    size: int | None = None,
    seeds: Sequence[int] | None = None,
    search: Search | None = None,
    batch_size: int = BATCH_SIZE,
    on_settled: Callable[[Settled], None] | None = None,
) -> Schedule:
    """Find the deviations with which a backbone's few steps come closest to its many.

    Args:
        backbone: with its text encoders; one evaluation a step.
        prompts: to search on, each with noise of its own.
        num_inference_steps: K; default the backbone's, as are the guidance and size (in pixels).
        seeds: of the noise, one per prompt; default 0, 1, 2 …
        search: how long is searched.
        batch_size: images drawn at once.
        on_settled: told of each deviation as it is settled.

    Raises:
        InputError: for settings that cannot be, or a solver that evaluates twice a step.
    """
    search, steps = search or Search(), num_inference_steps or backbone.entry.num_inference_steps
    seeds = range(len(prompts)) if seeds is None else seeds
    check_steps(steps)
    if not prompts or len(seeds) != len(prompts) or steps < 2 or batch_size < 1:
        raise InputError("a calibration needs 2 steps, and prompts with a seed each")
    canvas = Canvas(backbone, guidance_scale, size)
    backbone.check_size(canvas.pixels, canvas.pixels)
    settled: list[Settled] = []
    with _images(canvas, prompts, seeds, steps, batch_size) as images:
        scheduler = copy.deepcopy(backbone.pipe.scheduler)
        calibration = Calibration(images, lambda: copy.deepcopy(scheduler), search)
        for one in calibration.run():
            settled.append(one)
            if on_settled is not None:
                on_settled(one)
        deviations, sigmas = deviations_of(settled), scheduler.sigmas
        errors = [calibration.error(d) for d in (deviations, [0.0] * len(deviations))]
    made: dict[str, Any] = {
        "by": "calibration",
        **asdict(search),
        "images": len(prompts),
        "prompts_sha256": PromptSet("given", ALL, tuple(prompts)).fingerprint,
        "seeds": list(seeds),
        "error": errors[0],
        "synchronous_error": errors[1],
        "versions": versions(),
    }
    return Schedule(
        deviations=deviations,
        solver=backbone.scheduler,
        steps=steps,
        backbone=backbone.place,
        revision=backbone.revision,
        grid=backbone.grid,
        guidance_scale=canvas.scale,
        height=canvas.pixels,
        width=canvas.pixels,
        sigmas=tuple(sigmas.tolist()),
        cond_sigmas=tuple(desync.cond_sigmas(sigmas, sigmas.new_tensor(deviations)).tolist()),
        made=made,
    )


@contextmanager
def _images(
    canvas: Canvas, prompts: Sequence[str], seeds: Sequence[int], steps: int, batch_size: int
) -> Iterator[list[Images]]:
    """Batches of fields and noise; the scheduler is set to K steps."""
    adapter, side = canvas.backbone.adapter, canvas.pixels
    guidance, length = (
        Guidance(canvas.scale, canvas.scale),
        canvas.backbone.entry.max_sequence_length,
    )
    encoded = canvas.encode(prompts)
    images = []
    with denoising(adapter) as field:
        for start in range(0, len(prompts), batch_size):
            some = slice(start, start + batch_size)
            given = joined([encoded[prompt] for prompt in prompts[some]])
            do_cfg = adapter.does_cfg(guidance, given["negative_prompt_embeds"] is not None)
            text = adapter.encode(None, None, given, do_cfg, length)
            noise = adapter.prepare_latents(
                (len(prompts[some]), side, side),
                text.prompt_embeds.dtype,
                [torch.Generator().manual_seed(seed) for seed in seeds[some]],
                None,
            )
            images.append(Images(field(text, guidance, side, side), noise))
        adapter.set_timesteps(steps, noise)
        yield images
