"""What a request would draw, and the memory and time that it would take. Nothing is written."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from asyncdiff_cli.engine import weights
from asyncdiff_cli.engine.backbones import (
    Backbone,
    anonymous_entry,
    find_pipeline,
    read_index,
    resolve_device,
)
from asyncdiff_cli.engine.drawing import draw
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.jobs import check_source_is_kept, first, make_plan, open_job
from asyncdiff_cli.engine.planning import Batch, Plan
from asyncdiff_cli.engine.provenance import read_provenance
from asyncdiff_cli.engine.registry import BackboneEntry
from asyncdiff_cli.engine.requests import ModelChoice, Request

SMALL = 1 << 30
"""Bytes of weights up to which a model is loaded to time it."""


@dataclass(frozen=True)
class Estimate:
    """A number and how it was come by, or None and why it is not known."""

    value: float | None
    reason: str


@dataclass(frozen=True)
class Forecast:
    """A plan, and what it needs."""

    plan: Plan
    entry: BackboneEntry
    device: str
    dtype: str
    weights: Estimate
    """Bytes; what the evaluations need comes on top."""
    seconds: Estimate

    def to_dict(self, out: Path) -> dict[str, Any]:
        """As JSON values."""
        settings = dict.fromkeys(batch.settings for batch in self.plan.batches)
        return {
            "dry_run": True,
            "images": self.plan.images,
            "files": [str(out / file) for file in self.plan.files],
            "backbone": self.entry.name,
            "device": self.device,
            "dtype": self.dtype,
            "settings": [{**vars(each), "policy": each.policy.to_dict()} for each in settings],
            "weights_bytes": self.weights.value,
            "weights_reason": self.weights.reason,
            "seconds": self.seconds.value and round(self.seconds.value, 2),
            "seconds_reason": self.seconds.reason,
        }


def forecast(request: Request, choice: ModelChoice, out: Path) -> Forecast:
    """Plan a request; load the model only if it is small, to time it.

    Raises:
        InputError: for all that can be refused without running the model.
        AsyncDiffError: for a repository that is neither known by name nor on the disk.
    """
    recorded = read_provenance(request.source) if request.source else None
    choice = choice if recorded is None else choice.of(first(recorded))
    device, dtype = resolve_device(choice.device, choice.dtype)
    entry, directory = _locate(choice)
    size = _estimate_weights(entry, directory, dtype)
    if directory is not None and size.value is not None and size.value <= SMALL:
        job = open_job(request, choice, out)
        plan, entry, seconds = job.plan, job.backbone.entry, _time(job.plan, job.backbone)
    else:
        pixels = entry.size or (weights.default_size(directory) if directory else 0)
        plan = make_plan(request, recorded, entry, pixels)
        check_source_is_kept(request, plan, out)
        reason = f"a dry run times models on this disk, up to {SMALL >> 20} MiB of weights"
        seconds = Estimate(None, reason)
    name = str(dtype).removeprefix("torch.")
    return Forecast(plan, entry, str(device), name, size, seconds)


def _locate(choice: ModelChoice) -> tuple[BackboneEntry, Path | None]:
    entry, source, directory = find_pipeline(choice.name, choice.model_path)
    if directory is None and entry is not None:
        return entry, weights.snapshot(entry, choice.revision)
    if directory is None:
        raise AsyncDiffError(f"{source} is not known by name, and a dry run downloads nothing")
    _, adapter_class, _ = read_index(directory / "model_index.json")
    return entry or anonymous_entry(choice.name, adapter_class.family), directory


def _estimate_weights(entry: BackboneEntry, directory: Path | None, dtype: torch.dtype) -> Estimate:
    try:
        if directory is None:
            assert entry.repo is not None  # _locate found it by name
            return Estimate(weights.download_size(entry.repo), "as stored on the hub")
        return Estimate(weights.parameters(directory) * dtype.itemsize, "weights in this dtype")
    except AsyncDiffError as error:
        return Estimate(None, str(error))


def _time(plan: Plan, backbone: Backbone) -> Estimate:
    """Time a batch of each shape with one step and with three, and add up the plan."""
    timed: dict[tuple[int, int, int], tuple[float, float]] = {}
    total = 0.0
    for batch in plan.batches:
        shape = batch.settings.height, batch.settings.width, len(batch.drawn)
        if shape not in timed:
            _seconds(batch, backbone, steps=1)  # the first call of a shape is slower
            one, three = (_seconds(batch, backbone, steps) for steps in (1, 3))
            timed[shape] = one, max(0.0, three - one) / 2
        once, per_step = timed[shape]
        total += once + per_step * (batch.settings.num_inference_steps - 1)
    return Estimate(total, "timed here")


def _seconds(batch: Batch, backbone: Backbone, steps: int) -> float:
    settings = replace(batch.settings, num_inference_steps=steps)
    start = time.perf_counter()
    draw(replace(batch, settings=settings), backbone)  # returns images on the CPU: it has waited
    return time.perf_counter() - start
