"""The images that others are drawn from: read, recognised by their pixels, and recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from asyncdiff_cli.engine.backbones.control_nets import ControlNet
from asyncdiff_cli.engine.backbones.registry import FROM_IMAGE_SCHEDULERS
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.fields import ControlScale, Strength
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.pictures import read_picture
from asyncdiff_cli.engine.repository import is_pinned

NO_IMAGE = "--strength is how much of an image is drawn anew: give --image FILE with it"
NO_NET = "--control-image and --control-scale are for a control net: give --controlnet with them"
NO_CONTROL_IMAGE = (
    "--controlnet is told what to draw by an image: give --control-image FILE with it"
)
STRENGTH = 0.6
"""How much of an image is drawn anew unless asked otherwise; diffusers' own default."""


class RecordedImage(BaseModel):
    """An image as the record of what is drawn from it has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Where it was, from anywhere."""
    sha256: str
    """SHA-256 of its size and its pixels in RGB, in hexadecimal."""
    place: Annotated[Path | None, Field(exclude=True)] = None
    """Where it is now; None for `path`."""
    option: ClassVar[str]
    """How it is given."""

    @classmethod
    def of(cls, path: Path, **settings: Any) -> Self:
        """The image of a file, with how it is drawn from.

        Raises:
            InputError: as `read_picture`.
        """
        place = expanded(path).absolute()
        return cls(path=str(place), sha256=_sha256(read_picture(place)), **settings)

    def at(self, place: Path | None) -> Self:
        """The same, read from another file if one is given.

        Raises:
            InputError: for a file that is not there, or of another image.
        """
        found = self if place is None else self.model_copy(update={"place": expanded(place)})
        found.read()
        return found

    def read(self) -> Image.Image:
        """The image, RGB.

        Raises:
            InputError: for a file that is not there, or of another image.
        """
        place = self.place or Path(self.path)
        if not place.is_file():
            raise InputError(
                f"there is no image {place}, which was drawn from: give {self.option} FILE"
            )
        image = read_picture(place)
        if _sha256(image) != self.sha256:
            raise InputError(
                f"{place} is another image than the one that was drawn from, whose pixels have"
                f" SHA-256 {self.sha256}: give {self.option} FILE with that one"
            )
        return image

    def fitted(self, width: int, height: int) -> Image.Image:
        """The image scaled to a size in pixels, of another shape its middle.

        Raises:
            InputError: as `read`.
        """
        return ImageOps.fit(self.read(), (width, height), Image.Resampling.LANCZOS)


class InputImage(RecordedImage):
    """The image that a run begins at, or that a model edits."""

    strength: Strength | None = None
    """The share of the steps that is run on it; None for a model that edits."""
    option = "--image"

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


class ControlImage(RecordedImage):
    """The image that a control net is shown, and the net."""

    net: str
    """Its directory from anywhere, or its repository, at a commit where that is looked up."""
    fingerprint: str | None = None
    """SHA-256 of its files; None for a repository."""
    scale: ControlScale = 1.0
    """What the net's residuals are multiplied by."""
    option = "--control-image"

    def at(self, place: Path | None, net: str | None = None) -> Self:
        """The same, read from other places where they are given.

        Raises:
            InputError: as `RecordedImage.at`, and for a net in the place of a repository's, which
                cannot be told to be that one.
        """
        found = super().at(place)
        if net is not None and is_pinned(self.net):
            raise InputError(
                f"--from draws with the control net {self.net}: leave out --controlnet"
            )
        return found if net is None else found.model_copy(update={"net": net})

    def by(self, net: ControlNet) -> Self:
        """The same, with what a net is recognised by.

        Raises:
            InputError: for another net than the one that was drawn with.
        """
        if self.fingerprint not in (None, net.fingerprint):
            raise InputError(
                f"{net.place} is another control net than the one that was drawn with, whose files"
                f" have SHA-256 {self.fingerprint}: give --controlnet with that one"
            )
        return self.model_copy(update={"net": net.place, "fingerprint": net.fingerprint})


def check_controlled(nets: Sequence[str | None], images: Sequence[object]) -> None:
    """Check that images are drawn by one control net, from noise, or all by none.

    Raises:
        InputError: if not.
    """
    if not any(nets):
        return
    if len(set(nets)) > 1:
        raise InputError("prompts have several control nets, or some have none: draw them apart")
    if any(images):
        raise InputError("a control net draws from noise here: leave out --image")


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
