"""What a request would take, measured: its model is traced, and timed if it is small."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from asyncdiff_cli.engine.backbones import weights
from asyncdiff_cli.engine.backbones.backbone import Backbone, load_outline
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.loading import check_checkpoint
from asyncdiff_cli.engine.backbones.memory.advice import advise, evaluation_work
from asyncdiff_cli.engine.backbones.memory.footprint import SMALL_MODEL, footprint
from asyncdiff_cli.engine.backbones.memory.tracing import Work
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.presence import find_checkpoint, find_pipeline
from asyncdiff_cli.engine.backbones.registry import GGUF, BackboneEntry
from asyncdiff_cli.engine.backbones.schedulers import check_names
from asyncdiff_cli.engine.backbones.setup import Setup
from asyncdiff_cli.engine.devices import resolve_device
from asyncdiff_cli.engine.drawing.draw import check_sizes, draw, opened_for
from asyncdiff_cli.engine.drawing.estimate import (
    UNKNOWN,
    Estimate,
    Forecast,
    LookedAt,
    ModelNeeds,
    stored,
    stored_on_the_hub,
)
from asyncdiff_cli.engine.drawing.plan import Batch, Plan, largest
from asyncdiff_cli.engine.drawing.planning import check_source_is_kept, make_plan
from asyncdiff_cli.engine.drawing.request import Request
from asyncdiff_cli.engine.drawing.source_image import Record
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError


def measured(request: Request, recorded: Record | None, choice: ModelChoice, out: Path) -> Forecast:
    """Plan a request, and trace its model; load it only if it is small, to time it.

    Raises:
        InputError, AsyncDiffError: as `forecast`.
    """
    entry, outline = find_outline(choice)
    plan = make_plan(request, recorded, entry, outline.size if outline else entry.size or 0)
    check_source_is_kept(request, plan, out)
    reason = f"a dry run times models on this disk, up to {SMALL_MODEL >> 20} MiB of weights"
    seconds = Estimate(None, reason)
    if outline is None:
        return Forecast(plan, needs_unseen(choice, entry), seconds)
    plan, outline = opened_for(plan, outline)
    check_sizes(plan, outline)
    needs = needs_traced(choice, outline, largest(plan.batches, outline.entry))
    if needs.weights.value is not None and needs.weights.value <= SMALL_MODEL:
        seconds = _time(plan, load_outline(outline))
    return Forecast(plan, needs, seconds)


def needs_unseen(choice: ModelChoice, entry: BackboneEntry) -> ModelNeeds:
    """What a model needs that is not on this disk."""
    where = resolve_device(choice.device, choice.dtype, entry)
    held = stored_on_the_hub(entry, _file_size(choice))
    return ModelNeeds(choice.filled(entry.name, *where), held, UNKNOWN)


def needs_traced(
    choice: ModelChoice, outline: Outline, work: Work, encode_first: bool = False
) -> ModelNeeds:
    """What a model needs for some work, by tracing it.

    Args:
        encode_first: whether the text encoders are gone before the rest is loaded.

    Raises:
        InputError: for what cannot be drawn, or a file that is none of its family's.
    """
    check_checkpoint(outline.source)
    choice = choice.changed(scheduler=outline.scheduler)
    where = resolve_device(choice.device, choice.dtype, outline.entry)
    held, peak, advice = _estimate_memory(outline, work, encode_first)
    return ModelNeeds(choice.filled(outline.entry.name, *where), held, peak, advice)


def look_at(
    choice: ModelChoice, size: int | None, guidance: float | None, batch_on: Callable[[str], int]
) -> LookedAt:
    """Look at the model of an evaluation or a training, which encode their prompts first.

    Raises:
        InputError, AsyncDiffError: as `find_outline`, `Outline.check_side` and `needs_traced`.
    """
    entry, outline = find_outline(choice)
    if outline is None:
        return LookedAt(entry, entry.size or 0, needs_unseen(choice, entry))
    outline.check_side(size)
    work = evaluation_work(outline, batch_on(outline.device.type), size, guidance)
    needs = needs_traced(choice, outline, work, encode_first=True)
    if (peak := needs.memory).value is not None:
        needs = replace(needs, memory=replace(peak, reason=f"{peak.reason}, as rewards do"))
    return LookedAt(entry, outline.size, needs)


def find_outline(choice: ModelChoice) -> tuple[BackboneEntry, Outline | None]:
    """What is known of a model without a download; no outline of one that is not on this disk."""
    checkpoint = find_checkpoint(choice.model_path, choice.quantize)
    entry, place, directory = find_pipeline(choice.name, None if checkpoint else choice.model_path)
    if directory is not None:
        outline = Outline.of(choice)
        return outline.entry, outline
    if entry is None:
        raise AsyncDiffError(f"{place} is not known by name, and a dry run downloads nothing")
    where = resolve_device(choice.device, choice.dtype, entry)
    Setup.of(choice).check(*where)
    check_names(choice.scheduler, choice.grid)
    snapshot = weights.snapshot(entry, choice.revision)
    if snapshot is None:
        return entry, None
    path = choice.model_path if checkpoint else None
    local = choice.changed(backbone=str(snapshot), model_path=path, revision=None)
    outline = Outline.of(local, *where)
    return entry, replace(outline, source=replace(outline.source, entry=entry))


def _file_size(choice: ModelChoice) -> int | None:
    """Bytes of the file that takes the transformer's place, if one does."""
    path = choice.model_path
    return path.stat().st_size if path is not None and path.is_file() else None


def _estimate_memory(
    outline: Outline, work: Work, encode_first: bool
) -> tuple[Estimate, Estimate, str | None]:
    """Bytes of the weights, those that some work needs, and what to do if they are not there."""
    setup, checkpoint = outline.setup, outline.source.checkpoint
    directory, held = outline.configuration, (setup.quantize, setup.offload, encode_first)
    try:
        found = footprint(directory, outline.dtype, work, *held, device=outline.device)
    except InputError:  # what cannot be drawn needs no estimate
        raise
    except AsyncDiffError as error:
        return Estimate(None, str(error)), Estimate(None, str(error)), None
    if checkpoint is not None and checkpoint.suffix == GGUF:
        parts = {part.name: part.weights for part in found.components}
        unknown = Estimate(None, "what a GGUF file takes while it runs is not estimated")
        return stored(parts, checkpoint.stat().st_size, "as they are held"), unknown, None
    return (
        Estimate(found.weights, "as they are held"),
        Estimate(found.peak, f"for {work.batch} at once, by tracing; libraries come on top"),
        advise(outline, work, encode_first),
    )


def _time(plan: Plan, backbone: Backbone) -> Estimate:
    """Time a batch of each shape with one step and with three, and add up the plan."""
    check_sizes(plan, backbone)
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
