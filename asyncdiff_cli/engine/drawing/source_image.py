"""The image that a request draws again: its record, and the model that it is drawn by."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from asyncdiff_cli.engine.backbones.choice import ModelChoice, RecordedSettings
from asyncdiff_cli.engine.backbones.control_nets import check_control_net
from asyncdiff_cli.engine.backbones.editions import check_edition
from asyncdiff_cli.engine.backbones.named import check_model
from asyncdiff_cli.engine.drawing.provenance import PanelProvenance, Provenance, read_provenance
from asyncdiff_cli.engine.drawing.request import Request
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.fields import GuidanceScale, Seed, Steps, validated
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.limits import MAX_SIDE, MAX_TOKENS
from asyncdiff_cli.engine.policies.recorded import check_policy
from asyncdiff_cli.engine.prompts.lines import POLICY_OPTIONS

Record = Provenance | PanelProvenance
"""What an image, or a panel of several, was drawn from."""


def read_source(request: Request, choice: ModelChoice) -> tuple[Record | None, ModelChoice]:
    """What the request's source was drawn from, and the model that draws it again.

    Raises:
        InputError: for a record that cannot be read, names another backbone than the choice, or
            what is not on this machine and was not asked for, such as the image that it was drawn
            from, or is gone.
    """
    if request.source is None:
        return None, choice
    record = read_provenance(request.source)
    named = model_of(first(record), choice)
    check_edition(request.source, first(record).fingerprint, named)
    check_model(request.source, named, choice)
    own_policy = bool(request.given().keys() & POLICY_OPTIONS)
    for cell in cells(record):
        check_drawable(request.source, cell)
        if cell.image is not None:
            cell.image.at(request.image)
        if cell.control is not None:
            control = cell.control.at(request.control_image, request.controlnet)
            check_control_net(control.net, None)
        if not own_policy:
            check_policy(request.source, cell.policy)
    return record, named


def model_of(record: Provenance, choice: ModelChoice) -> ModelChoice:
    """The model of a recorded image, with what a user asks for in its place.

    Raises:
        InputError: for another backbone, whose noise would not be this image's.
    """
    if choice.backbone is not None and not _is_same(choice.backbone, record.backbone):
        raise InputError(
            f"--from draws with the image's backbone, {record.backbone}; if it is in another"
            " place now, give --model-path DIR"
        )
    gguf = choice.model_path is not None and choice.model_path.suffix == ".gguf"
    whole = choice.model_path is not None and choice.model_path.is_dir()
    kept = {
        name: getattr(record, name)
        for name in RecordedSettings.model_fields
        if not getattr(choice, name) and name not in choice.off
    }
    if gguf:
        kept.pop("quantize", None)
    return choice.changed(
        **kept,
        backbone=choice.backbone or record.backbone,
        revision=choice.revision or (None if whole else record.revision),
        device=choice.device or ("cpu" if record.device == "cpu" else None),
    )


def _is_same(given: str, recorded: str) -> bool:
    """Whether two names of a backbone are one, or the same directory."""
    return given == recorded or str(expanded(given).absolute()) == recorded


class Drawable(BaseModel):
    """What an image's record may say for it to be drawn: anyone may have written it."""

    model_config = ConfigDict(allow_inf_nan=False)

    gamma: float
    num_inference_steps: Steps
    guidance_scale: GuidanceScale
    height: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    width: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    max_sequence_length: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None
    seeds: list[Seed]


def check_drawable(where: object, record: Provenance) -> None:
    """What a record says can be drawn.

    Args:
        where: the image's file.

    Raises:
        InputError: naming every value that cannot be.
    """
    values = {**vars(record), "seeds": [drawn.seed for drawn in record.batch]}
    validated(Drawable, values, f"the record of {where}")


def cells(record: Record) -> list[Provenance]:
    """The records of an image or of all images of a panel."""
    if isinstance(record, Provenance):
        return [record]
    return [cell for row in record.cells for cell in row]


def first(record: Record) -> Provenance:
    """An image's record, or that of a panel's first image."""
    return record.cells[0][0] if isinstance(record, PanelProvenance) else record
