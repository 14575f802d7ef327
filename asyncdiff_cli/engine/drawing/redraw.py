"""The plan that draws an image or a panel again."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from asyncdiff_cli.engine.backbones.choice import ModelChoice, RecordedSettings
from asyncdiff_cli.engine.backbones.registry import BackboneEntry
from asyncdiff_cli.engine.drawing.plan import Batch, Panel, Plan, compared_gammas, slug
from asyncdiff_cli.engine.drawing.provenance import Drawn, PanelProvenance, Provenance
from asyncdiff_cli.engine.drawing.request import Request
from asyncdiff_cli.engine.drawing.settings import BatchSettings, chosen_policy, resolve
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.fields import GuidanceScale, Seed, Steps, validated
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.limits import MAX_SIDE, MAX_TOKENS
from asyncdiff_cli.engine.policies.base import Policy
from asyncdiff_cli.engine.policies.specs import plain, read_policy
from asyncdiff_cli.engine.policies.table import policy_from_dict


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


def plan_redraw(
    request: Request, record: Provenance | PanelProvenance, stem: str, entry: BackboneEntry
) -> Plan:
    """Draw an image or a panel again: the same batches, with the request's options for its own.

    Args:
        record: what the image was drawn from.
        stem: its file's name, without the suffix.
        entry: its backbone.

    Raises:
        InputError: for options of a panel, which is only redrawn as it is.
    """
    changes = request.given()
    if isinstance(record, PanelProvenance):
        if changes or request.compare:
            raise InputError(
                "a panel is only redrawn as it is; to change something, use --from with one of"
                " its images"
            )
        return _plan_panel(record, f"{stem}.png")

    settings = recorded_settings(record, chosen_policy(request, entry))
    settings = resolve(request, settings, entry)
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


def _plan_panel(record: PanelProvenance, file: str) -> Plan:
    """The panel's batches, each drawn once for all of its images that the panel shows."""
    files: dict[tuple[BatchSettings, tuple[Drawn, ...]], list[str | None]] = {}
    names = []
    for i, row in enumerate(record.cells):
        names.append(tuple(f"{i}-{j}" for j in range(len(row))))
        for name, cell in zip(names[-1], row, strict=True):
            slots = files.setdefault(
                (recorded_settings(cell), cell.batch), [None] * len(cell.batch)
            )
            slots[cell.index] = name
    batches = (Batch(chosen, drawn, tuple(slots)) for (chosen, drawn), slots in files.items())
    panel = Panel(file, tuple(names), record.columns, record.rows)
    return Plan(tuple(batches), (panel,), only_panels=True)


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


def recorded_settings(record: Provenance, policy: Policy | None = None) -> BatchSettings:
    """The settings of the batch that an image was drawn in, with another policy if given."""
    values = {field.name: getattr(record, field.name) for field in fields(BatchSettings)}
    return BatchSettings(**{**values, "policy": policy or policy_from_dict(record.policy)})


def _value(name: str, value: Any) -> str:
    """An option's value as a part of a file name."""
    if name == "policy" and (spec := read_policy(value)).source is None:
        return f"-{spec.label.replace(':', '-').replace('/', '-')}"
    if isinstance(value, str):
        return slug(value)
    return "-".join(map(plain, value)) if isinstance(value, tuple) else plain(value)
