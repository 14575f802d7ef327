"""SHA-256 of files and of tensors, by which they are known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def sha256_of_files(files: Iterable[tuple[str, Path]]) -> str:
    """Hash files one after another, in hexadecimal.

    Args:
        files: what to call each, which is hashed too, and where it is; "" for bytes alone.
    """
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(name.encode() + b"\0" if name else b"")
        for chunk in _chunks(path):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_tensors(tensors: Mapping[str, Tensor], before: bytes = b"") -> str:
    """Hash the names and bytes of tensors, in the order of the names; in hexadecimal.

    Args:
        before: what is hashed first.
    """
    digest = hashlib.sha256(before)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + b"\0" + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a mebibyte at a time."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
