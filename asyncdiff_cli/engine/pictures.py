"""Pictures as they come from anywhere: opened with one line for what is wrong, and made RGB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from asyncdiff_cli.engine.errors import InputError

SIXTEEN_BIT = 65535
WHITES = {"I": (255, SIXTEEN_BIT), "F": (1, 255, SIXTEEN_BIT)}
"""What white may be in pictures of wide numbers; a mode that is not here is of 16 bits."""


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """A file as Pillow opens it; its pixels are read when they are asked for.

    Raises:
        InputError: for what is missing, no file, or no image that can be read within the block.
    """
    try:
        if not Path(path).exists():
            raise InputError(f"there is no file {path}")
        if not Path(path).is_file():  # a pipe would be waited for
            raise InputError(f"{path} is not a readable image: it is not a file")
        with Image.open(path) as image:
            yield image
    except InputError:
        raise
    except Exception as error:  # for damaged files Pillow's readers raise errors of any class
        raise InputError(f"{path} is not a readable image: {_why(error, path)}") from None


def _why(error: Exception, path: str | Path) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return "it is in no format that is known"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"it is damaged ({error})"


def read_picture(path: str | Path) -> Image.Image:
    """A file's picture as `rgb` makes it.

    Raises:
        InputError: as `opened` and `rgb`, and for an animation or several pages.
    """
    with opened(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a photograph, with previews behind it
            raise InputError(f"{path} holds {frames} pictures, and one is needed")
        try:
            return rgb(image)
        except InputError as error:
            raise InputError(f"{path} is not a readable image: {error}") from None


def rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB, turned as its EXIF record says, transparency over white.

    Grey of 16 bits or more is scaled, where Pillow would clip it. In the modes I and F, which may
    hold any numbers, white is the smallest of 1 (F only), 255 and 65535 that no pixel exceeds.

    Raises:
        InputError: for numbers below 0, above 65535 or not finite.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled(image).convert("RGB")
    if image.mode == "La":  # which Pillow converts to its twin alone
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Grey of wide numbers in 8 bits, transparency over white."""
    import numpy as np  # of all pictures few are read here, and recipes need no numpy

    values = np.asarray(image)
    fitting = (w for w in WHITES.get(image.mode, (SIXTEEN_BIT,)) if values.max() <= w)
    white = next(fitting, None)
    if white is None or not values.min() >= 0:
        raise InputError(
            f"its grey goes from {values.min():g} to {values.max():g}, and from 0 to"
            f" {SIXTEEN_BIT} is known"
        )
    scaled = np.rint(values * (255 / white)).astype(np.uint8)
    scaled[values == image.info.get("transparency")] = 255  # one grey of a PNG may be transparent
    return Image.fromarray(scaled)


def square(image: Image.Image, side: int) -> Image.Image:
    """The central square, at so many pixels: bicubic and antialiased."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    image = image.crop((left, top, left + short, top + short))
    return image if short == side else image.resize((side, side), Image.Resampling.BICUBIC)
