"""A hash of the files that a model is loaded from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.hashes import sha256_of_files


def fingerprint(directory: Path | None, checkpoint: Path | None, lora: Sequence[str]) -> str | None:
    """The `Backbone.fingerprint` of the files that it is loaded from."""
    files: list[tuple[str, Path]] = []
    if directory is not None:
        files += _weight_files(directory)
    if checkpoint is not None:
        files.append((checkpoint.name, checkpoint))
    for text in lora:
        path = LoRA.parse(text).local()
        files.append((path.name, path))
    states = [(path.stat().st_size, path.stat().st_mtime_ns) for _, path in files]
    return _hashed(tuple(files), tuple(states)) if files else None


@lru_cache(maxsize=4)
def _hashed(files: Sequence[tuple[str, Path]], states: Sequence[tuple[int, int]]) -> str:
    """The hash of files of these sizes and times, which takes minutes for a large model."""
    return sha256_of_files(files)


def _weight_files(directory: Path) -> list[tuple[str, Path]]:
    suffixes = {".safetensors", ".bin", ".json"}
    found = (path for path in sorted(directory.rglob("*")) if path.suffix in suffixes)
    return [(path.relative_to(directory).as_posix(), path) for path in found]
