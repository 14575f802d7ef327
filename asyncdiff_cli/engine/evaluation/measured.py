"""What the model of a comparison needs, by tracing it."""

from __future__ import annotations

from dataclasses import replace

from asyncdiff_cli.engine.backbones.memory.advice import evaluation_work
from asyncdiff_cli.engine.backbones.registry import BackboneEntry
from asyncdiff_cli.engine.drawing.estimate import ModelNeeds
from asyncdiff_cli.engine.drawing.measured import find_outline, needs_traced, needs_unseen
from asyncdiff_cli.engine.evaluation.comparison import Comparison


def look_at(wanted: Comparison) -> tuple[BackboneEntry, int, ModelNeeds]:
    """Look a model up: what is known of it, its size in pixels (0 if unknown), what it needs.

    Raises:
        InputError, AsyncDiffError: as `find_outline`, `Outline.check_side` and `needs_traced`; and
            for a policy that cannot be made for it.
    """
    entry, outline = find_outline(wanted.choice)
    if outline is None:
        return entry, entry.size or 0, needs_unseen(wanted.choice, entry)
    outline.check_side(wanted.size)
    wanted.contenders(entry)
    batch = wanted.batch_on(outline.device.type)
    work = evaluation_work(outline, batch, wanted.size, wanted.guidance)
    needs = needs_traced(wanted.choice, outline, work, encode_first=True)
    if (peak := needs.memory).value is not None:
        needs = replace(needs, memory=replace(peak, reason=f"{peak.reason}, as rewards do"))
    return entry, outline.size, needs
