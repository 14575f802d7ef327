"""What sets of pictures are compared with: other pictures, or their statistics in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.set_metrics import get
from asyncdiff_cli.engine.evaluation.set_metrics.base import SetMetric
from asyncdiff_cli.engine.files import REFERENCE, write_atomically
from asyncdiff_cli.engine.hashes import sha256_of_files
from asyncdiff_cli.engine.pictures import read_picture, square
from asyncdiff_cli.engine.reading import Read, parse_json
from asyncdiff_cli.engine.rewards.base import REWARD_BATCH_SIZE
from asyncdiff_cli.engine.rewards.embedded import directory_of
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

    def statistics(self, metric: SetMetric, side: int) -> dict[str, Tensor]:
        """The statistics of a metric, read or computed on the device of its model.

        Args:
            side: of the pictures that are drawn.

        Raises:
            InputError: if the pictures cannot be read, or the file has none of this metric, these
                weights and this size.
        """
        if self.files:
            return metric.statistics(_features(metric, self.files, side))
        made = read_header(self.path / REFERENCE).metrics.get(metric.name)
        if made != expected(metric, side):
            raise InputError(
                f"{self.path / REFERENCE} has no {metric.name} of pictures of {side} pixels by"
                " these weights: give --reference a directory of pictures"
            )
        return read_statistics(self.path, [metric.name])[metric.name]


def expected(metric: SetMetric, side: int) -> Made:
    """How the statistics for drawn pictures of this size are made."""
    return Made(weights=metric.weights, side=side if metric.at_drawn_size else None)


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
    shipped = directory_of("mini_judge")
    apart = [name for name in names if not get(name).embedded]
    if backbone != "mini" or apart or not (shipped / REFERENCE).is_file():
        raise InputError(
            f"there is nothing to compare with by {', '.join(apart or names)}: give --reference DIR"
        )
    return shipped


def _features(metric: SetMetric, files: Sequence[Path], side: int) -> Tensor:
    """[M, F] of pictures, which are cut to their central square."""
    parts = []
    for start in range(0, len(files), REWARD_BATCH_SIZE):
        images = [read_picture(file) for file in files[start : start + REWARD_BATCH_SIZE]]
        if metric.at_drawn_size:
            for file, image in zip(files[start:], images, strict=False):
                if min(image.size) < side:
                    raise InputError(
                        f"{file} has {image.width}×{image.height} pixels, and what is drawn"
                        f" {side}×{side}: {metric.name} needs a reference of that size or larger"
                    )
            images = [square(image, side) for image in images]
        parts.append(metric.features(images))
    return torch.cat(parts)


def write_statistics(
    directory: Path,
    reference: Reference,
    statistics: Mapping[str, Mapping[str, Tensor]],
    made: Mapping[str, Made],
) -> None:
    """Write the statistics of metrics as `REFERENCE`.

    Raises:
        AsyncDiffError: if it cannot be written.
    """
    header = Header(
        format=FORMAT, pictures=reference.fingerprint, images=reference.images, metrics=dict(made)
    )
    tensors = {
        f"{name}.{key}": tensor.contiguous()
        for name, by_key in statistics.items()
        for key, tensor in by_key.items()
    }
    metadata = {HEADER: header.model_dump_json()}
    write_atomically(directory / REFERENCE, lambda file: save_file(tensors, file, metadata))


def is_kept(directory: Path, reference: Reference, made: Mapping[str, Made]) -> bool:
    """Whether a directory has the statistics of these pictures, made in this way."""
    try:
        header = read_header(directory / REFERENCE)
    except InputError:
        return False
    return (header.pictures, header.metrics) == (reference.fingerprint, made)


def read_header(path: Path) -> Header:
    """What a file of statistics says of itself.

    Raises:
        InputError: for another file, or one of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(HEADER, "")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}") from None
    header = parse_json(text, Header, str(path))
    if header.format != FORMAT:
        raise InputError(f"{path} has format {header.format}, and this version reads {FORMAT}")
    return header


def read_statistics(directory: Path, names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """The statistics of metrics.

    Raises:
        AsyncDiffError: if one of them is not there.
    """
    path = directory / REFERENCE
    statistics: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    try:
        with safe_open(path, "pt") as file:
            for full in list(file.keys()):
                name, _, key = full.partition(".")
                if name in statistics:
                    statistics[name][key] = file.get_tensor(full)
    except (SafetensorError, OSError) as error:
        raise AsyncDiffError(
            f"{path} cannot be read ({one_line(error)}): evaluate into the same --out with the same"
            " --reference to have it made again"
        ) from None
    for name, by_key in statistics.items():
        if not by_key:
            raise AsyncDiffError(f"{path} lacks the statistics of {name}")
        if not all(tensor.isfinite().all() for tensor in by_key.values()):
            raise AsyncDiffError(f"{path} is damaged: a number of {name} is NaN or infinite")
    return statistics
