"""What set metrics need of a reference: computed of its pictures, and kept in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.set_metrics.base import SetMetric
from asyncdiff_cli.engine.evaluation.set_metrics.reference import (
    FORMAT,
    HEADER,
    Header,
    Made,
    Reference,
    read_header,
)
from asyncdiff_cli.engine.files import REFERENCE, write_atomically
from asyncdiff_cli.engine.pictures import read_picture, square
from asyncdiff_cli.engine.rewards.base import REWARD_BATCH_SIZE
from asyncdiff_cli.engine.text import one_line


def statistics_of(reference: Reference, metric: SetMetric, side: int) -> dict[str, Tensor]:
    """The statistics of a reference by a metric, read or computed on the device of its model.

    Args:
        side: of the pictures that are drawn.

    Raises:
        InputError: if the pictures cannot be read, or the file has none of this metric, these
            weights and this size.
    """
    if reference.files:
        return metric.statistics(_features(metric, reference.files, side))
    made = read_header(reference.path / REFERENCE).metrics.get(metric.name)
    if made != expected(metric, side):
        raise InputError(
            f"{reference.path / REFERENCE} has no {metric.name} of pictures of {side} pixels by"
            " these weights: give --reference a directory of pictures"
        )
    return read_statistics(reference.path, [metric.name])[metric.name]


def expected(metric: SetMetric, side: int) -> Made:
    """How the statistics for drawn pictures of this size are made."""
    return Made(weights=metric.weights, side=side if metric.at_drawn_size else None)


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
