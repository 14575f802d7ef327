"""Four drawn shapes in the place of the emoji art, so that no test needs the npm packages."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from mini import data
from mini.data import Composer, Concept
from mini.settings import ART_PACKAGE, LABEL_PACKAGE, Settings

WORDS = {"ball": ("orb",), "box": ("crate", "cube"), "egg": (), "ice cream": ("cone",)}


def shape(number: int) -> Image.Image:
    art = Image.new("RGBA", (64, 64))
    pen = ImageDraw.Draw(art)
    box = (8, 8, 56, 40 + 4 * number)
    draw = pen.ellipse if number % 2 else pen.rectangle
    draw(box, fill=(40 * number, 200 - 30 * number, 90, 255))
    return art


@pytest.fixture(scope="session")
def composer() -> Composer:
    concepts = (
        Concept(name, tags, shape(number).crop(shape(number).getbbox()))
        for number, (name, tags) in enumerate(WORDS.items())
    )
    return Composer(tuple(concepts), Settings().scenes)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with both packages in their real layout, holding the four shapes."""
    entries = [
        {"label": name, "tags": list(tags), "hexcode": f"1F60{number}"}
        for number, (name, tags) in enumerate(WORDS.items())
    ]
    files = {"package/en/data.json": json.dumps(entries).encode()}
    write_package(tmp_path, LABEL_PACKAGE, files)
    art = {}
    for number in range(len(WORDS)):
        buffer = io.BytesIO()
        shape(number).save(buffer, "WEBP", lossless=True)
        suffix = "-fe0f" if number == 2 else ""
        art[f"package/assets/1f60{number}{suffix}.webp"] = buffer.getvalue()
    write_package(tmp_path, ART_PACKAGE, art)
    monkeypatch.setattr(data, "CONCEPTS", "ball=orb box:crate,cube egg ice_cream:cone")
    data.load_concepts.cache_clear()
    yield tmp_path
    data.load_concepts.cache_clear()


def write_package(directory: Path, package: str, files: dict[str, bytes]) -> None:
    with tarfile.open(directory / data.file_name(package), "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
