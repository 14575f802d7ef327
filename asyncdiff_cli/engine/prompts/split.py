"""The prompts that are trained on and those kept for validation; the same on every machine."""

from __future__ import annotations

import hashlib

FILE_HELD_OUT = 10
"""One in so many prompts of a file is for validation."""


SPLITS = ("train", "validation")


def is_held_out(key: str, one_in: int) -> bool:
    """Whether `key` is for validation, as one in so many are."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") * one_in < 2**32
