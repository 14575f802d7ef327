"""The image that others are drawn from: read, recognised by its pixels, and recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from asyncdiff_cli.engine.backbones.registry import FROM_IMAGE_SCHEDULERS
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.fields import Strength
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.pictures import read_picture

NO_IMAGE = "--strength is how much of an image is drawn anew: give --image FILE with it"


STRENGTH = 0.6
"""How much of an image is drawn anew unless asked otherwise; diffusers' own default."""


class InputImage(BaseModel):
    """An image as the record of what is drawn from it has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Where it was, from anywhere."""
    sha256: str
    """SHA-256 of its size and its pixels in RGB, in hexadecimal."""
    strength: Strength | None = None
    """The share of the steps that is run on it; None for a model that edits."""
    place: Annotated[Path | None, Field(exclude=True)] = None
    """Where it is now; None for `path`."""

    @classmethod
    def of(cls, path: Path, strength: float | None = None) -> Self:
        """The image of a file.

        Raises:
            InputError: as `read_picture`.
        """
        place = expanded(path).absolute()
        return cls(path=str(place), sha256=_sha256(read_picture(place)), strength=strength)

    def at(self, place: Path | None) -> Self:
        """The same, read from another file if one is given.

        Raises:
            InputError: for a file that is not there, or of another image.
        """
        found = self if place is None else self.model_copy(update={"place": expanded(place)})
        found.read()
        return found

    def with_strength(self, edits: bool) -> Self:
        """The same, with a strength if there is none, for a model that takes one.

        Args:
            edits: whether the model edits the image, and takes none.

        Raises:
            InputError: for a strength that it does not take.
        """
        if not edits:
            return self.model_copy(update={"strength": self.strength or STRENGTH})
        if self.strength is not None:
            raise InputError(
                "this model edits the whole image, as the prompt says: leave out --strength"
            )
        return self

    def read(self) -> Image.Image:
        """The image, RGB.

        Raises:
            InputError: for a file that is not there, or of another image.
        """
        place = self.place or Path(self.path)
        if not place.is_file():
            raise InputError(f"there is no image {place}, which was drawn from: give --image FILE")
        image = read_picture(place)
        if _sha256(image) != self.sha256:
            raise InputError(
                f"{place} is another image than the one that was drawn from, whose pixels have"
                f" SHA-256 {self.sha256}: give --image FILE with that one"
            )
        return image

    def fitted(self, width: int, height: int) -> Image.Image:
        """The image scaled to a size in pixels, of another shape its middle.

        Raises:
            InputError: as `read`.
        """
        return ImageOps.fit(self.read(), (width, height), Image.Resampling.LANCZOS)


def check_drawn_from(images: Sequence[object], scheduler: str | None) -> None:
    """Check that images are drawn from an image each, or none is, by a solver that can.

    Args:
        scheduler: its name; None while it is not known.

    Raises:
        InputError: if not.
    """
    if not any(images):
        return
    if not all(images):
        raise InputError("some prompts have an image and others have none: draw them apart")
    if scheduler not in (None, *FROM_IMAGE_SCHEDULERS):
        raise InputError(
            f"the solver {scheduler} does not draw from an image: give --solver"
            f" {' or '.join(FROM_IMAGE_SCHEDULERS)}"
        )


def _sha256(image: Image.Image) -> str:
    size = f"{image.width}x{image.height}:".encode()
    return hashlib.sha256(size + image.tobytes()).hexdigest()
