"""Counting the denoiser's work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def counted(transformer: nn.Module) -> Iterator[list[int]]:
    """Give the rows of each call of a transformer within the block: an image of a branch each."""
    rows: list[int] = []

    def count(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        rows.append(len(args[0] if args else kwargs["hidden_states"]))

    handle = transformer.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()
