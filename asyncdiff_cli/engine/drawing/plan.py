"""Batches of a request: defaults filled in, seeds given out, files named."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from asyncdiff_cli.engine.backbones.registry import BackboneEntry
from asyncdiff_cli.engine.drawing.provenance import Drawn
from asyncdiff_cli.engine.drawing.request import Picture, Request
from asyncdiff_cli.engine.drawing.settings import (
    FROM_IMAGES,
    MADE,
    BatchSettings,
    PolicyMaker,
    defaults,
    resolve,
)
from asyncdiff_cli.engine.policies.specs import plain

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.memory.tracing import Work
    from asyncdiff_cli.engine.policies.base import Policy

DRAWN_AT_ONCE = 4
"""Images that are drawn at once, unless asked otherwise."""
WAYS = "synchronous", "asynchronous"
"""How one noise is drawn without and with deviations, in names of files and in labels."""


@dataclass(frozen=True)
class Batch:
    """Images that are drawn in one call, and the files that they go to; None for no file."""

    settings: BatchSettings
    drawn: tuple[Drawn, ...]
    files: tuple[str | None, ...]
    stepwise: bool = False
    """Whether x̂0 after its steps is shown too."""

    def beside(self, synchronous: Policy) -> Batch:
        """The same noise without deviations, in files beside these."""
        settings = replace(self.settings, policy=synchronous, gamma=1.0)
        files = (file and named(file, WAYS[0]) for file in self.files)
        return replace(self, settings=settings, files=tuple(files))


@dataclass(frozen=True)
class Panel:
    """A file that shows other files' images, [rows][columns]."""

    file: str
    cells: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None
    """Labels, as in `PanelProvenance`."""
    stepwise: bool = False
    """Whether it is a sheet of the steps of its cells, one a row."""


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
        return [_as_json(settings) for settings in distinct]

    @property
    def files(self) -> list[str]:
        """What will be written."""
        images = [file for batch in self.batches for file in batch.files if file is not None]
        return ([] if self.only_panels else images) + [panel.file for panel in self.panels]


def _as_json(settings: BatchSettings) -> dict[str, Any]:
    images = {
        name: image.model_dump() for name in FROM_IMAGES if (image := getattr(settings, name))
    }
    return {**settings.arguments, "policy": settings.policy.to_dict(), **images}


def largest(batches: Iterable[Batch], entry: BackboneEntry) -> Work:
    """The batch of a plan that takes the most memory."""
    from asyncdiff_cli.engine.backbones.memory.tracing import Work

    batch = max(batches, key=lambda b: len(b.drawn) * b.settings.height * b.settings.width)
    settings = batch.settings
    negative = settings.negative_prompt or entry.negative_prompt
    return Work(
        len(batch.drawn),
        settings.height,
        settings.width,
        settings.guidance_scale,
        negative is not None,
        settings.max_sequence_length,
    )


def plan_request(
    request: Request, entry: BackboneEntry, size: int, policies: PolicyMaker = MADE
) -> Plan:
    """Resolve a request's images against a backbone, of whose own size they are by default.

    Images with equal settings share batches, in the order of the request.

    Args:
        policies: what they are drawn with, or, of a plan that is not drawn, are told of.

    Raises:
        InputError: for a prompt file that cannot be used.
    """
    wanted = request.pictures
    base = defaults(entry, size, policies)
    settings = [resolve(p.options, base, entry, policies) for p in wanted]
    gammas = [
        compared_gammas(request, p.options.gamma) or (chosen.gamma,)
        for p, chosen in zip(wanted, settings, strict=True)
    ]
    together: dict[tuple[BatchSettings, tuple[float, ...]], list[Picture]] = {}
    for picture in wanted:
        key = settings[picture.number], gammas[picture.number]
        together.setdefault(key, []).append(picture)

    step = request.batch_size or DRAWN_AT_ONCE
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
        name = f"{images[0].number:04d}{slug(images[0].prompt)}-compare.png"
        panels.append(Panel(name, cells))
    return Plan(tuple(batches), tuple(panels))


def with_steps(plan: Plan, synchronous: Policy) -> Plan:
    """The plan with the synchronous images too, and a sheet of each noise's steps in both ways."""
    batches: list[Batch] = []
    sheets = []
    for batch in plan.batches:
        chosen = replace(batch, stepwise=True)
        deviates = batch.settings.policy != synchronous
        ways = (chosen.beside(synchronous), chosen) if deviates else (chosen,)
        batches += ways
        for row in zip(*(way.files for way in ways), strict=True):
            if (file := row[-1]) is not None:
                cells = tuple((str(name),) for name in row)
                sheets.append(
                    Panel(named(file, "stepwise"), cells, rows=WAYS[: len(row)], stepwise=True)
                )
    return Plan(tuple(batches), tuple(sheets))


def compared_gammas(request: Request, gamma: float | None) -> tuple[float, ...]:
    """The γ of a comparison, ascending: one that is asked for by itself too is one more."""
    if not request.compare:
        return ()
    return tuple(sorted({*request.compare, *(() if gamma is None else (gamma,))}))


def _file(picture: Picture, gamma: float | None = None) -> str:
    """A name such as `0000-a-cat-seed7.png`, or `0000-a-cat-seed7-gamma0.5.png` in a comparison."""
    suffix = "" if gamma is None else f"-gamma{plain(gamma)}"
    return f"{picture.number:04d}{slug(picture.prompt)}-seed{picture.seed}{suffix}.png"


def named(file: str, ending: str) -> str:
    """The name of a file beside another one, such as `0000-a-cat-seed7-stepwise.png`."""
    return f"{file.removesuffix('.png')}-{ending}.png"


def slug(text: str, length: int = 40) -> str:
    """The text's first words as a part of a file name; "" for a script without a Latin form."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    if len(words) > length:
        words = words[: length + 1].rpartition("-")[0] or words[:length]
    return f"-{words}" if words else ""
