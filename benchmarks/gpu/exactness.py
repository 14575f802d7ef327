"""Whether D = 0 returns the untouched pipeline's bits on this device: each dtype and solver."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine import Backbone, FixedDeviation, Synchronous, attach, sample
from asyncdiff_cli.engine.schedulers import SCHEDULERS, make_scheduler
from benchmarks.gpu.architecture import ARCHITECTURES, make_backbone
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.speed import embeddings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
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
        "sample, synchronous": partial(draw, synchronous),
        "sample, γ = 0": partial(draw, unscaled),
        "attach, synchronous": attached,
    }


def compare(backbone: Backbone) -> dict[str, bool]:
    """Whether the latents and the images of each way equal the stock pipeline's to the bit."""
    drawn = {
        name: [draw(kind) for kind in ("latent", "pt")] for name, draw in ways(backbone).items()
    }
    stock = drawn.pop(STOCK)
    if not all(bool(values.isfinite().all()) for values in stock):
        raise ValueError("the random weights overflow, so nothing is compared")
    return {name: all(map(torch.equal, own, stock)) for name, own in drawn.items()}


def measure_exactness(backbone: Backbone, settings: Settings) -> dict[str, Any]:
    """Toys of both families in each dtype under each solver, and this run's backbone as it is."""
    rows = []
    for name, architecture in ARCHITECTURES.items():
        for label, dtype in DTYPES.items():
            toy = make_backbone(name, architecture.narrowed(), settings.where, dtype, PIXELS)
            family, config = toy.adapter.family, toy.pipe.scheduler.config
            for solver in SCHEDULERS:
                toy.pipe.scheduler = make_scheduler(solver, family, config)
                row = {"backbone": f"{name}, tiny", "dtype": label, "solver": solver}
                rows.append({**row, "equal": compare(toy)})
    label = next(name for name, dtype in DTYPES.items() if dtype is backbone.dtype)
    row = {"backbone": backbone.name, "dtype": label, "solver": backbone.scheduler}
    rows.append({**row, "equal": compare(backbone)})
    return {"rows": rows, "all_equal": all(all(row["equal"].values()) for row in rows)}
