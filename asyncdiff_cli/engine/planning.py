"""From a request to batches: defaults filled in, seeds given out, files named."""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.limits import MAX_SIDE, MAX_TOKENS
from asyncdiff_cli.engine.policies import (
    FixedDeviation,
    Policy,
    ScheduledDeviation,
    Synchronous,
    policy_from_dict,
)
from asyncdiff_cli.engine.policy_specs import load_learned, parse_policy, plain, read_policy
from asyncdiff_cli.engine.provenance import Drawn, PanelProvenance, Provenance
from asyncdiff_cli.engine.registry import BackboneEntry
from asyncdiff_cli.engine.requests import (
    GuidanceScale,
    Options,
    Picture,
    Request,
    Seed,
    Steps,
    pictures,
    validated,
)

BATCH_SIZE = 4
"""Images that are drawn at once, unless asked otherwise."""


@dataclass(frozen=True)
class Settings:
    """What the images of one batch share; named as the arguments of `sample` and `describe`."""

    policy: Policy
    gamma: float
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    negative_prompt: str | None
    max_sequence_length: int | None


@dataclass(frozen=True)
class Batch:
    """Images that are drawn in one call, and the files that they go to; None for no file."""

    settings: Settings
    drawn: tuple[Drawn, ...]
    files: tuple[str | None, ...]


@dataclass(frozen=True)
class Panel:
    """A file that shows other files' images, [rows][columns]."""

    file: str
    cells: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None
    """Labels, as in `PanelProvenance`."""


@dataclass(frozen=True)
class Plan:
    """All that a request will draw, in order."""

    batches: tuple[Batch, ...]
    panels: tuple[Panel, ...] = ()
    only_panels: bool = False
    """Whether the images of the panels get no files of their own."""

    @property
    def images(self) -> int:
        """How many images are drawn, also those of a batch that go to no file."""
        return sum(len(batch.drawn) for batch in self.batches)

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The distinct settings of the batches, as JSON values."""
        distinct = dict.fromkeys(batch.settings for batch in self.batches)
        return [{**vars(each), "policy": each.policy.to_dict()} for each in distinct]

    @property
    def files(self) -> list[str]:
        """What will be written."""
        images = [file for batch in self.batches for file in batch.files if file is not None]
        return ([] if self.only_panels else images) + [panel.file for panel in self.panels]


def plan_request(request: Request, entry: BackboneEntry, size: int) -> Plan:
    """Resolve a request's images against a backbone, of whose own size they are by default.

    Images with equal settings share batches, in the order of the request.

    Raises:
        InputError: for a prompt file that cannot be used.
    """
    wanted = pictures(request)
    base = defaults(entry, size)
    settings = [resolve(p.options, base, entry) for p in wanted]
    gammas = [
        columns(request, p.options.gamma) or (chosen.gamma,)
        for p, chosen in zip(wanted, settings, strict=True)
    ]
    together: dict[tuple[Settings, tuple[float, ...]], list[Picture]] = {}
    for picture in wanted:
        key = settings[picture.number], gammas[picture.number]
        together.setdefault(key, []).append(picture)

    step = request.batch_size or BATCH_SIZE
    batches = [
        Batch(
            settings=replace(chosen, gamma=gamma),
            drawn=tuple(Drawn(prompt=p.prompt, seed=p.seed) for p in chunk),
            files=tuple(_file(p, gamma if request.compare else None) for p in chunk),
        )
        for (chosen, row), group in together.items()
        for chunk in (group[i : i + step] for i in range(0, len(group), step))
        for gamma in row
    ]
    if not request.compare:
        return Plan(tuple(batches))

    panels = []
    for _, row_pictures in itertools.groupby(wanted, key=lambda p: p.row):
        images = list(row_pictures)
        cells = tuple(tuple(_file(p, gamma) for gamma in gammas[p.number]) for p in images)
        name = f"{images[0].number:04d}{_slug(images[0].prompt)}-compare.png"
        panels.append(Panel(name, cells))
    return Plan(tuple(batches), tuple(panels))


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
    files = {g: f"{stem}-gamma{plain(g)}.png" for g in columns(request, request.gamma)}
    batches = [_redrawn(record, replace(settings, gamma=g), file) for g, file in files.items()]
    panel = Panel(f"{stem}-compare.png", (tuple(files.values()),))
    return Plan(tuple(batches), (panel,))


def _redrawn(record: Provenance, settings: Settings, file: str) -> Batch:
    files = (file if index == record.index else None for index in range(len(record.batch)))
    return Batch(settings, record.batch, tuple(files))


def _plan_panel(record: PanelProvenance, file: str) -> Plan:
    """The panel's batches, each drawn once for all of its images that the panel shows."""
    files: dict[tuple[Settings, tuple[Drawn, ...]], list[str | None]] = {}
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


def defaults(entry: BackboneEntry, size: int) -> Settings:
    """What a backbone does unless asked otherwise."""
    return Settings(
        policy=load_learned(entry.name) if entry.tpm else _fixed(entry.deviation),
        gamma=1.0,
        num_inference_steps=entry.num_inference_steps,
        guidance_scale=entry.guidance_scale,
        height=size,
        width=size,
        negative_prompt=None,
        max_sequence_length=entry.max_sequence_length,
    )


def resolve(options: Options, base: Settings, entry: BackboneEntry) -> Settings:
    """The options where there are any, else `base`."""
    changed: dict[str, Any] = {
        name: getattr(options, option)
        for option, name in ARGUMENTS.items()
        if getattr(options, option) is not None
    }
    if options.size is not None:
        changed["width"], changed["height"] = options.size
    if (policy := chosen_policy(options, entry)) is not None:
        changed["policy"] = policy
    return replace(base, **changed)


def chosen_policy(options: Options, entry: BackboneEntry) -> Policy | None:
    """The policy that is asked for; None where it is left to the backbone."""
    if options.policy is not None:
        return parse_policy(options.policy, entry).policy
    if options.deviation is not None:
        return _fixed(options.deviation)
    if options.schedule is not None:
        return ScheduledDeviation(options.schedule, options.bound or 1.0)
    return None if options.tpm is None else load_learned(options.tpm)


ARGUMENTS = {
    "gamma": "gamma",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "negative": "negative_prompt",
}
"""Options, and the settings that they are as they stand."""


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


def recorded_settings(record: Provenance, policy: Policy | None = None) -> Settings:
    """The settings of the batch that an image was drawn in, with another policy if given."""
    values = {field.name: getattr(record, field.name) for field in fields(Settings)}
    return Settings(**{**values, "policy": policy or policy_from_dict(record.policy)})


def columns(request: Request, gamma: float | None) -> tuple[float, ...]:
    """The γ of a comparison, ascending: one that is asked for by itself too is one more."""
    if not request.compare:
        return ()
    return tuple(sorted({*request.compare, *(() if gamma is None else (gamma,))}))


def _fixed(deviation: float) -> Policy:
    return FixedDeviation(deviation) if deviation else Synchronous()


def _file(picture: Picture, gamma: float | None = None) -> str:
    """Such as `0000-a-cat-seed7.png`, or `0000-a-cat-seed7-gamma0.5.png` in a comparison."""
    suffix = "" if gamma is None else f"-gamma{plain(gamma)}"
    return f"{picture.number:04d}{_slug(picture.prompt)}-seed{picture.seed}{suffix}.png"


def _slug(text: str, length: int = 40) -> str:
    """The text's first words as a part of a file name; "" for a script without a Latin form."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    if len(words) > length:
        words = words[: length + 1].rpartition("-")[0] or words[:length]
    return f"-{words}" if words else ""


def _value(name: str, value: Any) -> str:
    """An option's value as a part of a file name."""
    if name == "policy" and (spec := read_policy(value)).source is None:
        return f"-{spec.label.replace(':', '-').replace('/', '-')}"
    if isinstance(value, str):
        return _slug(value)
    return "-".join(map(plain, value)) if isinstance(value, tuple) else plain(value)
