"""Counting the denoiser's work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
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


def counting(
    transformer: nn.Module, jobs: Mapping[str, Callable[[], Any]]
) -> tuple[dict[str, Callable[[], Any]], Counter[str]]:
    """The same jobs, and the rows that each has asked a transformer for so far."""
    total: Counter[str] = Counter()

    def counted_job(name: str) -> None:
        with counted(transformer) as rows:
            jobs[name]()
        total[name] += sum(rows)

    return {name: partial(counted_job, name) for name in jobs}, total


def saved(rows: int, whole: int) -> dict[str, float]:
    """The rows of a job, those of the same without sharing, and the share that is saved."""
    return {"rows": rows, "without sharing": whole, "saved": round(1 - rows / whole, 4)}
