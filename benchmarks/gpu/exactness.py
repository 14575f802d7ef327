"""Whether D = 0 returns the untouched pipeline's bits on this device: each dtype and solver.

The stock pipeline is drawn with twice: where it differs from itself, nothing else can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine import Backbone, FixedDeviation, Synchronous, attach, sample
from asyncdiff_cli.engine.backbones.schedulers import SCHEDULERS, make_scheduler
from benchmarks.gpu.architecture import ARCHITECTURES, cast, make_backbone
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.rows import Row, Task
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.speed import embeddings

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
HALVES = ("fp16", "bf16")
BATCH, STEPS, PIXELS = 2, 3, 64
STOCK = "stock"


def ways(backbone: Backbone) -> dict[str, Callable[[str], Tensor]]:
    """One and the same batch, as latents or images ("latent", "pt"), by each way to draw it."""
    settings: dict[str, Any] = {
        "num_inference_steps": STEPS,
        "guidance_scale": backbone.entry.guidance_scale,
        "height": backbone.size,
        "width": backbone.size,
        **{name: value for name, value in embeddings(backbone, BATCH).items() if value is not None},
    }

    def draw(call: Callable[..., Any], output_type: str) -> Tensor:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(BATCH)]
        return call(generator=seeds, output_type=output_type, **settings).images

    def attached(output_type: str) -> Tensor:
        with attach(backbone.pipe, Synchronous()):
            return draw(backbone.pipe, output_type)

    synchronous = partial(sample, backbone, policy=Synchronous())
    unscaled = partial(sample, backbone, policy=FixedDeviation(0.5), gamma=0.0)
    return {
        STOCK: partial(draw, backbone.pipe),
        "stock, again": partial(draw, backbone.pipe),
        "sample, synchronous": partial(draw, synchronous),
        "sample, γ = 0": partial(draw, unscaled),
        "attach, synchronous": attached,
    }


def compare(backbone: Backbone) -> Row:
    """Whether the latents and the images of each way equal the stock pipeline's to the bit, and
    the largest difference where they do not.

    Raises:
        ValueError: if the weights overflow in this dtype.
    """
    drawn = {
        name: [draw(kind) for kind in ("latent", "pt")] for name, draw in ways(backbone).items()
    }
    stock = drawn.pop(STOCK)
    if not all(bool(values.isfinite().all()) for values in stock):
        raise ValueError("the random weights overflow, so nothing is compared")
    equal = {name: all(map(torch.equal, own, stock)) for name, own in drawn.items()}
    largest = {
        name: max(
            float((a.float() - b.float()).abs().max()) for a, b in zip(own, stock, strict=True)
        )
        for name, own in drawn.items()
        if not equal[name]
    }
    return {"equal": equal, **({"largest_difference": largest} if largest else {})}


def tasks(bench: Bench) -> Iterator[Task]:
    """The backbone as it is in both halves of a float, and a toy of its kind with each solver."""
    for label in HALVES:
        yield Task({"model": "whole", "dtype": label}, partial(_whole, bench, DTYPES[label]))
    for label, dtype in DTYPES.items():
        for solver in SCHEDULERS:
            key = {"model": "toy", "dtype": label, "solver": solver}
            yield Task(key, partial(_toy, bench.settings, dtype, solver))


def _whole(bench: Bench, dtype: torch.dtype) -> list[Row]:
    before = bench.loaded.dtype
    try:
        return [compare(cast(bench.loaded, dtype))]
    finally:
        cast(bench.loaded, before)


def _toy(settings: Settings, dtype: torch.dtype, solver: str) -> list[Row]:
    architecture = ARCHITECTURES[settings.backbone].narrowed()
    toy = make_backbone(settings.backbone, architecture, settings.where, dtype, PIXELS)
    family, config = toy.adapter.family, toy.pipe.scheduler.config
    toy.pipe.scheduler = make_scheduler(solver, family, config)
    return [compare(toy)]
