"""The plan that draws an image or a panel again."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from asyncdiff_cli.engine.backbones.registry import BackboneEntry
from asyncdiff_cli.engine.drawing.plan import Batch, Panel, Plan, compared_gammas, slug
from asyncdiff_cli.engine.drawing.provenance import Drawn, PanelProvenance, Provenance
from asyncdiff_cli.engine.drawing.request import Request
from asyncdiff_cli.engine.drawing.settings import (
    MADE,
    BatchSettings,
    PolicyMaker,
    controlled,
    resolve,
)
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.specs import plain, read_policy
from asyncdiff_cli.engine.prompts.lines import Options

if TYPE_CHECKING:
    from asyncdiff_cli.engine.policies.base import Policy

MOVED = ("image", "control_image", "controlnet")
"""Options that say where something is now, and change nothing."""


def plan_redraw(
    request: Request,
    record: Provenance | PanelProvenance,
    stem: str,
    entry: BackboneEntry,
    policies: PolicyMaker = MADE,
) -> Plan:
    """Draw an image or a panel again: the same batches, with the request's options for its own.

    Args:
        record: what the image was drawn from.
        stem: its file's name, without the suffix.
        entry: its backbone.
        policies: as of `plan_request`.

    Raises:
        InputError: for options of a panel, which is only redrawn as it is.
    """
    changes = {name: value for name, value in request.given().items() if name not in MOVED}
    if isinstance(record, PanelProvenance):
        if changes or request.compare or request.stepwise:
            raise InputError(
                "a panel is only redrawn as it is; to change something, use --from with one of"
                " its images"
            )
        return _plan_panel(record, f"{stem}.png", policies, request)

    policy = policies.asked(request, entry) or policies.recorded(record.policy)
    settings = recorded_settings(record, policy, request)
    settings = resolve(request, settings, entry, policies)
    stem += "".join(f"-{name}{_value(name, value)}" for name, value in changes.items())
    if not request.compare:
        return Plan((_redrawn(record, settings, f"{stem}.png"),))
    files = {g: f"{stem}-gamma{plain(g)}.png" for g in compared_gammas(request, request.gamma)}
    batches = [_redrawn(record, replace(settings, gamma=g), file) for g, file in files.items()]
    panel = Panel(f"{stem}-compare.png", (tuple(files.values()),))
    return Plan(tuple(batches), (panel,))


def _redrawn(record: Provenance, settings: BatchSettings, file: str) -> Batch:
    files = (file if index == record.index else None for index in range(len(record.batch)))
    return Batch(settings, record.batch, tuple(files))


def _plan_panel(record: PanelProvenance, file: str, policies: PolicyMaker, given: Options) -> Plan:
    """The panel's batches, each drawn once for all of its images that the panel shows.

    Args:
        given: where that is now which they were drawn from.
    """
    files: dict[tuple[BatchSettings, tuple[Drawn, ...]], list[str | None]] = {}
    names = []
    for i, row in enumerate(record.cells):
        names.append(tuple(f"{i}-{j}" for j in range(len(row))))
        for name, cell in zip(names[-1], row, strict=True):
            settings = recorded_settings(cell, policies.recorded(cell.policy), given)
            slots = files.setdefault((settings, cell.batch), [None] * len(cell.batch))
            slots[cell.index] = name
    batches = (
        Batch(chosen, drawn, tuple(slots), record.stepwise)
        for (chosen, drawn), slots in files.items()
    )
    panel = Panel(file, tuple(names), record.columns, record.rows, record.stepwise)
    return Plan(tuple(batches), (panel,), only_panels=True)


def recorded_settings(record: Provenance, policy: Policy, given: Options) -> BatchSettings:
    """The settings of the batch that an image was drawn in, with a policy.

    Args:
        given: where that is now which it was drawn from.

    Raises:
        InputError: for one that was drawn from none, or as `RecordedImage.at`.
    """
    values = {field.name: getattr(record, field.name) for field in fields(BatchSettings)}
    if record.image is not None:
        values["image"] = record.image.at(given.image)
    elif given.image is not None:
        raise InputError("--from keeps what an image was drawn from, and this one was from noise")
    if record.control is not None:
        values["control"] = controlled(given, record.control)
    elif given.controlnet is not None or given.control_image is not None:
        raise InputError("--from keeps a control net, and this image was drawn with none")
    return BatchSettings(**{**values, "policy": policy})


def _value(name: str, value: Any) -> str:
    """An option's value as a part of a file name."""
    if name == "policy" and (spec := read_policy(value)).source is None:
        return f"-{spec.label.replace(':', '-').replace('/', '-')}"
    if isinstance(value, str):
        return slug(value)
    return "-".join(map(plain, value)) if isinstance(value, tuple) else plain(value)
