"""A directory as pieces of bounded size, and back: for ways that carry only small files."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

LIMIT = 15 * 2**20
"""Bytes in a piece, below 16 MB and 16 MiB."""
INDEX = "pieces.json"


def split(
    source: Path, target: Path, names: Sequence[str] | None = None, limit: int = LIMIT
) -> int:
    """Pack ``source`` into ``target`` and say how many pieces it took.

    Args:
        names: what of ``source`` to take; default all of it.
        limit: bytes in a piece.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target) as whole:
        with tarfile.open(fileobj=whole, mode="w:gz", compresslevel=1) as archive:
            for name in sorted(names or (path.name for path in source.iterdir())):
                if (source / name).exists():
                    archive.add(source / name, name)
        whole.seek(0)
        digests = []
        while piece := whole.read(limit):
            (target / f"piece-{len(digests):02}").write_bytes(piece)
            digests.append(hashlib.sha256(piece).hexdigest())
    (target / INDEX).write_text(json.dumps(digests))
    return len(digests)


def join(source: Path, target: Path) -> None:
    """Unpack into ``target`` what `split` wrote into ``source``.

    Raises:
        ValueError: a piece is missing or damaged; nothing is unpacked then.
    """
    digests = json.loads((source / INDEX).read_text())
    paths = [source / f"piece-{number:02}" for number in range(len(digests))]
    for path, digest in zip(paths, digests, strict=True):
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{path} is missing or damaged")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target) as whole:
        for path in paths:
            whole.write(path.read_bytes())
        whole.seek(0)
        with tarfile.open(fileobj=whole, mode="r:gz") as archive:
            archive.extractall(target, filter="data")
