"""What sets of pictures are compared with: other pictures, or their statistics in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field
from safetensors import SafetensorError, safe_open

from asyncdiff_cli.engine.assets import ASSETS
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.set_metrics import SHIPPED
from asyncdiff_cli.engine.files import REFERENCE
from asyncdiff_cli.engine.hashes import sha256_of_files
from asyncdiff_cli.engine.reading import Read, parse_json
from asyncdiff_cli.engine.text import one_line

FORMAT = 1
HEADER = "reference"
"""The key of the file's metadata that holds a `Header` as JSON."""


class Made(Read):
    """How the statistics of a metric were made."""

    weights: str | None = None
    side: int | None = None
    """Pixels of the pictures, where they were brought to the size of drawn ones."""


class Header(Read):
    """What a file of statistics says of itself."""

    format: int
    pictures: str
    """The fingerprint of the pictures."""
    images: int = Field(ge=2)
    metrics: dict[str, Made]


@dataclass(frozen=True)
class Reference:
    """Pictures, or a file of their statistics.

    Attributes:
        path: the directory that was given.
        fingerprint: tells the pictures from others.
        images: how many they are.
        files: the pictures; none where only their statistics are there.
    """

    path: Path
    fingerprint: str
    images: int
    files: tuple[Path, ...] = ()


def find_reference(path: Path) -> Reference:
    """The statistics in a directory, or else its pictures.

    Raises:
        InputError: if there is neither, or fewer than two pictures.
    """
    if (path / REFERENCE).is_file():
        header = read_header(path / REFERENCE)
        return Reference(path, header.pictures, header.images)
    from asyncdiff_cli.engine.evaluation.scoring import find_files

    if not path.is_dir():
        raise InputError(f"--reference is a directory of pictures, and there is none at {path}")
    files = find_files([path])
    if len(files) < 2:
        raise InputError(f"--reference {path} has one picture, and a set has two or more")
    digest = sha256_of_files(("", file) for file in files)
    return Reference(path, digest[:16], len(files), tuple(files))


def default_reference(backbone: str, names: Sequence[str]) -> Path:
    """Where the reference of a backbone is that comes with the package: that of mini's judge.

    Raises:
        InputError: if there is none for this backbone and these metrics.
    """
    shipped = ASSETS / "mini_judge"
    apart = [name for name in names if name not in SHIPPED]
    if backbone != "mini" or apart or not (shipped / REFERENCE).is_file():
        raise InputError(
            f"there is nothing to compare with by {', '.join(apart or names)}: give --reference DIR"
        )
    return shipped


def read_header(path: Path) -> Header:
    """What a file of statistics says of itself.

    Raises:
        InputError: for another file, or one of another format.
    """
    try:
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get(HEADER, "")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}") from None
    header = parse_json(text, Header, str(path))
    if header.format != FORMAT:
        raise InputError(f"{path} has format {header.format}, and this version reads {FORMAT}")
    return header
