"""A few drawn shapes in the place of the art, so that no test needs the npm packages."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mini.art import SIDE, Drawing, Sprites, dominant_hue, file_name
from mini.compose import Composer
from mini.scenes import Scenes
from mini.settings import SIZE

THINGS = ("cat", "dog", "car", "apple", "orange", "fire engine", "ice cream", "sheep")


def shape(number: int) -> Image.Image:
    """A square, disc, triangle or bar, in one of several hues."""
    art = Image.new("RGBA", (SIDE, SIDE))
    pen = ImageDraw.Draw(art)
    colour = Image.new("HSV", (1, 1), (32 * number, 200, 220)).convert("RGB").getpixel((0, 0))
    box = (2, 2 + 20 * (number % 3 == 2), SIDE - 2, SIDE - 2 - 20 * (number % 3 == 2))
    draw = pen.ellipse if number % 2 else pen.rectangle
    draw(box, fill=(*colour, 255))
    return art


@pytest.fixture(scope="session")
def sprites() -> Sprites:
    pixels = [np.asarray(shape(number)) for number in range(len(THINGS))]
    drawings = [
        Drawing(thing, "flat", dominant_hue(p)) for thing, p in zip(THINGS, pixels, strict=True)
    ]
    drawings[-1] = Drawing(THINGS[-1], "flat", None)  # one that takes no colour
    return Sprites(np.stack(pixels), tuple(drawings))


@pytest.fixture(scope="session")
def scenes(sprites: Sprites) -> Scenes:
    return Scenes(sprites.drawings)


@pytest.fixture(scope="session")
def composer(sprites: Sprites) -> Composer:
    return Composer(sprites, SIZE)


def write_package(directory: Path, package: str, files: dict[str, bytes]) -> None:
    """An npm package's archive, as `mini.art.download` leaves it."""
    with tarfile.open(directory / file_name(package), "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def to_json(values: object) -> bytes:
    return json.dumps(values).encode()
