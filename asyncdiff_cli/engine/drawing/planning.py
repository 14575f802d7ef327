"""The plan of a request, whether for new images or for one that is drawn again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asyncdiff_cli.engine.backbones.control_nets import ControlNet
from asyncdiff_cli.engine.backbones.registry import BASELINE, BackboneEntry
from asyncdiff_cli.engine.drawing.input_image import check_controlled, check_drawn_from
from asyncdiff_cli.engine.drawing.plan import Plan, plan_request, with_steps
from asyncdiff_cli.engine.drawing.redraw import plan_redraw
from asyncdiff_cli.engine.drawing.request import Request
from asyncdiff_cli.engine.drawing.settings import MADE, PolicyMaker
from asyncdiff_cli.engine.drawing.source_image import Record
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.prompts.lines import Options


def make_plan(
    request: Request,
    recorded: Record | None,
    entry: BackboneEntry,
    size: int,
    policies: PolicyMaker = MADE,
) -> Plan:
    """The plan of a request for new images, or for its source again.

    Args:
        recorded: what the source was drawn from.
        size: what the backbone draws by default.
        policies: as of `plan_request`.

    Raises:
        InputError: as `plan_request` and `plan_redraw`.
    """
    if recorded is None or request.source is None:
        plan = plan_request(request, entry, size, policies)
    else:
        plan = plan_redraw(request, recorded, request.source.stem, entry, policies)
    if not request.stepwise:
        return plan
    return with_steps(plan, policies.asked(Options(policy=BASELINE), entry))


def from_images(plan: Plan, scheduler: str | None, edits: bool) -> Plan:
    """A plan with the strength of what is drawn from images, if it is.

    Args:
        scheduler: the solver's name; None while it is not known.
        edits: whether the model edits whole images.

    Raises:
        InputError: as `check_drawn_from`, `check_controlled` and `InputImage.with_strength`.
    """
    images = [batch.settings.image for batch in plan.batches]
    check_drawn_from(images, scheduler)
    check_controlled(control_nets(plan), images)
    batches = (
        replace(batch, settings=replace(batch.settings, image=image.with_strength(edits)))
        if image
        else batch
        for batch, image in zip(plan.batches, images, strict=True)
    )
    return replace(plan, batches=tuple(batches))


def control_nets(plan: Plan) -> list[str | None]:
    """The control net of each batch, or None."""
    controls = [batch.settings.control for batch in plan.batches]
    return [None if control is None else control.net for control in controls]


def with_control_net(plan: Plan, net: ControlNet) -> Plan:
    """A plan that is drawn by a control net, with what that is recognised by.

    Raises:
        InputError: as `ControlImage.by`.
    """
    batches = (
        replace(batch, settings=replace(batch.settings, control=control.by(net)))
        if (control := batch.settings.control)
        else batch
        for batch in plan.batches
    )
    return replace(plan, batches=tuple(batches))


def check_source_is_kept(request: Request, plan: Plan, out: Path) -> None:
    """Check that no file of the plan is the image that it is drawn from.

    Raises:
        InputError: if one is.
    """
    if request.source is not None and request.source.resolve() in {
        (out / file).resolve() for file in plan.files
    }:
        raise InputError(f"{request.source} would be overwritten: give another --out")
