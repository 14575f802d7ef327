"""Prompts in a fixed order, and fixed ways to take some of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from asyncdiff_cli.engine.checks import check_unicode
from asyncdiff_cli.engine.errors import InputError

ALL = "all"
"""What is read of a file that is evaluated on."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts in a fixed order, and two fixed ways to take some of them."""

    name: str
    """What it was asked for as: one of SOURCES, or the path of a file."""
    split: str
    """ "train" or "validation"."""
    texts: tuple[str, ...]
    categories: tuple[str, ...] = ()
    """The category of each text, for a set that has some."""

    def __post_init__(self) -> None:
        check_unicode(f"a prompt of {self.name}", "".join(self.texts))

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the texts and their order, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()

    def at(self, position: int, seed: int) -> str:
        """The prompt at `position` (from 0, without end) of a shuffled reading.

        Each pass over the set has an order of its own. It depends on nothing but the texts, the
        position and the seed, so a run that is resumed needs no more than its position.
        """
        epoch, index = divmod(position, len(self))
        return self.texts[_order(len(self), seed, epoch)[index]]

    def draw(self, count: int, seed: int) -> tuple[str, ...]:
        """`count` entries without replacement; a smaller draw begins a larger one of its seed.

        Raises:
            InputError: if there are not so many.
        """
        return tuple(self.texts[index] for index in self.order(count, seed))

    def order(self, count: int, seed: int) -> list[int]:
        """The places of the entries that `draw` takes.

        Raises:
            InputError: as `draw`.
        """
        if not 0 <= count <= len(self):
            kind = "" if self.split == ALL else f"{self.split} "
            raise InputError(
                f"{self.name} has {len(self):,} {kind}prompts: ask for at most so many, not"
                f" {count:,}"
            )
        return np.random.default_rng(seed).permutation(len(self))[:count].tolist()


@lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(size)
