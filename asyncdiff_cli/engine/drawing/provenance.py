"""What an image was drawn from, kept in the image: enough to draw its bytes again."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from PIL import Image, PngImagePlugin
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

import asyncdiff_cli
from asyncdiff_cli.engine.backbones.choice import RecordedSettings
from asyncdiff_cli.engine.drawing.input_image import ControlImage, InputImage
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import unused, write_atomically
from asyncdiff_cli.engine.limits import MAX_BATCH
from asyncdiff_cli.engine.pictures import opened
from asyncdiff_cli.engine.policies.recorded import member_of
from asyncdiff_cli.engine.reading import MAX_SETTINGS_BYTES, problem

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.backbone import Backbone
    from asyncdiff_cli.engine.drawing.settings import BatchSettings
    from asyncdiff_cli.engine.sampling.attach import Trace
    from asyncdiff_cli.engine.sampling.sample import SampleResult


CHUNK = "asyncdiff"
"""The keyword of the PNG text chunk."""
PANEL = '{"cells":'
"""How a panel's record starts, and no image's."""


ADDED: Mapping[str, Any] = {"image": None, "control": None, "stepwise": False}
"""Fields that a record has only where they differ from this: bytes stay those of records before."""


class _Record(BaseModel):
    """What is kept in an image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_later(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = serialize(self)
        return {k: v for k, v in values.items() if k not in ADDED or v != ADDED[k]}


class Drawn(BaseModel):
    """What tells one image of a batch from the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    seed: int


class _Drawing(BaseModel):
    """Which image, of what model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    revision: str | None
    """Commit of the repository that it was loaded from."""
    fingerprint: str | None
    """SHA-256 of the local files that it was loaded from."""
    batch: Annotated[tuple[Drawn, ...], Field(max_length=MAX_BATCH)]
    """All images of the batch: floating point repeats to the bit only in the same batch."""
    index: int
    """The place of this one among them."""
    negative_prompt: str | None
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    max_sequence_length: int | None


class Provenance(_Record, RecordedSettings, _Drawing):
    """Everything that an image depends on, and the times that it was conditioned on.

    There is no date in it: the same command writes the same bytes.
    """

    scheduler: str
    grid: str = "model"
    dtype: str
    device: str
    policy: dict[str, Any]
    gamma: float
    cond_sigmas: tuple[float, ...]
    deviations: tuple[float, ...]
    image: InputImage | None = None
    """What it was drawn from, in place of noise alone."""
    control: ControlImage | None = None
    """What a control net was shown, and the net."""
    share_first: bool = False
    """Whether images of one prompt and seed shared the first evaluation, in a batch of its own:
    bits depend on it, so a redraw does as it was done."""
    versions: dict[str, str]

    @model_validator(mode="after")
    def _check_index(self) -> Provenance:
        if not 0 <= self.index < len(self.batch):
            raise ValueError(f"there is no image {self.index} in a batch of {len(self.batch)}")
        return self

    @property
    def prompt(self) -> str:
        return self.batch[self.index].prompt

    @property
    def seed(self) -> int:
        return self.batch[self.index].seed

    @property
    def image_policy(self) -> tuple[dict[str, Any], float]:
        """The description and the γ of the image's own policy, where its batch has several."""
        if "images" not in self.policy:
            return self.policy, self.gamma
        place = member_of(self.policy["images"], self.index)
        return self.policy["policies"][place], self.policy["gammas"][place]


PanelRow = Annotated[tuple[Provenance, ...], Field(min_length=1)]


class PanelProvenance(_Record):
    """What a panel was put together from."""

    cells: Annotated[tuple[PanelRow, ...], Field(min_length=1)]
    """A row per noise, a column per policy or γ."""
    columns: tuple[str, ...] | None = None
    """Labels above the columns; None for their γ."""
    rows: tuple[str, ...] | None = None
    """Labels beside the rows; None for their seeds, below the prompt that they share."""
    stepwise: bool = False
    """Whether a row is x̂0 after the steps of its one cell."""


def describe(
    backbone: Backbone,
    result: SampleResult | Trace,
    drawn: Sequence[Drawn],
    settings: BatchSettings,
) -> list[Provenance]:
    """The provenance of each image of one call of `sample` or a pipeline, which drew these so."""
    shared: dict[str, Any] = {  # asked for once: a pipeline walks its modules for its device
        **vars(settings),
        "policy": settings.policy.to_dict(),
        "backbone": backbone.location,
        "revision": backbone.revision,
        "fingerprint": backbone.fingerprint,
        "batch": tuple(drawn),
        **backbone.recorded,
        "device": backbone.device_name,
        "versions": {"asyncdiff-cli": asyncdiff_cli.__version__, **versions()},
    }
    return [
        Provenance(
            **shared,
            index=index,
            cond_sigmas=tuple(result.cond_sigmas[index].tolist()),
            deviations=tuple(result.deviations[index].tolist()),
        )
        for index in range(len(drawn))
    ]


@cache
def versions() -> dict[str, str]:
    """The versions of the libraries that decide about a picture's bytes."""
    packages = ("torch", "diffusers", "transformers", "pillow")
    return {name: importlib.metadata.version(name) for name in packages}


def save_png(
    image: Image.Image,
    path: str | Path,
    provenance: Provenance | PanelProvenance,
    chunks: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the image with its provenance; the file appears complete or not at all.

    Args:
        chunks: further texts, by their keywords.

    Raises:
        AsyncDiffError: if it cannot be written.
    """
    text = PngImagePlugin.PngInfo()
    text.add_itxt(CHUNK, provenance.model_dump_json())
    for keyword, value in chunks.items():
        text.add_itxt(keyword, value)
    write_atomically(Path(path), lambda file: image.save(file, format="PNG", pnginfo=text))


def save_apart(
    image: Image.Image,
    path: Path,
    provenance: Provenance | PanelProvenance,
    chunks: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write as `save_png` does, in the place of no image that other settings have drawn.

    Returns:
        Where: as `unused`.

    Raises:
        AsyncDiffError: as `save_png`.
    """
    path = unused(path, lambda place: not os.path.lexists(place) or _is_of(place, provenance))
    save_png(image, path, provenance, chunks)
    return path


def _is_of(path: Path, provenance: Provenance | PanelProvenance) -> bool:
    """Whether an image was drawn from the same, whatever times that led to."""
    try:
        return _settings(read_provenance(path)) == _settings(provenance)
    except InputError:
        return False


def _settings(record: Provenance | PanelProvenance) -> Any:
    if isinstance(record, Provenance):
        return record.model_dump(mode="json", exclude={"cond_sigmas", "deviations"})
    cells = [[_settings(cell) for cell in row] for row in record.cells]
    return cells, record.model_dump(exclude={"cells"})


def read_provenance(path: str | Path) -> Provenance | PanelProvenance:
    """Read back what `save_png` wrote.

    Raises:
        InputError: for a file that is missing, not an image, or without a valid provenance.
    """
    text = text_chunks(path).get(CHUNK)
    if text is None:
        raise InputError(f"{path} carries no asyncdiff provenance (was it re-encoded?)")
    if len(text) > MAX_SETTINGS_BYTES:
        raise InputError(
            f"{path}: its provenance is damaged: it has more than {MAX_SETTINGS_BYTES >> 20} MiB"
        )
    model = PanelProvenance if text.startswith(PANEL) else Provenance
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: its provenance is damaged: {problem(error)}") from None


def text_chunks(path: str | Path) -> dict[str, str]:
    """Read the text chunks of an image by their keywords; other files than PNGs have none.

    Raises:
        InputError: for a file that is missing, or not an image.
    """
    with opened(path) as image:
        image.load()
        return dict(getattr(image, "text", {}))


def is_panel(path: str | Path) -> bool:
    """Whether a file is a panel of several images, by the head of the file alone."""
    try:
        with opened(path) as image:
            return str(image.info.get(CHUNK, "")).startswith(PANEL)
    except InputError:
        return False
