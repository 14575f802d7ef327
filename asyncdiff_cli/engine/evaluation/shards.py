"""Shards: an evaluation's prompts in several parts, each drawn by processes of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path


def places(count: int, shard: tuple[int, int]) -> range:
    """The prompts of a shard, of which its processes take each their own."""
    index, shards = shard
    return range(index, count, shards)


def encoded_at(store: Path, shard: tuple[int, int]) -> Path:
    """Where a shard's encoded prompts are while it draws."""
    return store / f".text-{shard[0]}-{shard[1]}"


def remove_encoded(store: Path, shard: tuple[int, int]) -> None:
    """Remove what dead processes encoded of prompts that a shard has drawn since."""
    index, count = shard
    for path in store.glob(".text-*-*"):
        shard_of = re.fullmatch(r"\.text-(\d+)-(\d+)", path.name)
        if shard_of and int(shard_of[2]) % count == 0 and int(shard_of[1]) % count == index:
            shutil.rmtree(path, ignore_errors=True)
