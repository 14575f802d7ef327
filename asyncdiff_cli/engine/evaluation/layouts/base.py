"""What the layout of a benchmark says: names of pictures, texts beside them, files of scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.prompts.benchmarks import BenchmarkPrompt
from asyncdiff_cli.engine.reading import shown

Row = Mapping[str, Any]
"""A row of a store."""


class DrawnPrompt(NamedTuple):
    """A prompt of a benchmark with what one setting has drawn of it."""

    place: int
    """Its place in the benchmark's published order."""
    prompt: BenchmarkPrompt
    rows: Sequence[Row]
    """A row for each noise, in their order."""


class ExportedPicture(NamedTuple):
    """A file of a tree: the image of a row, or those of several rows in one."""

    file: str
    """The path below the tree."""
    rows: Sequence[Row]
    said: str
    """What its scorer's results call it: a path below the tree."""
    group: str = ""
    """A part of the benchmark that may be scored without the others."""


class Scored(NamedTuple):
    """What a scorer says of a picture."""

    where: str
    """The file and the line, for messages."""
    picture: Path
    """A path that ends in the tree and what `ExportedPicture.said` is."""
    scores: Sequence[float]
    """A score for each row."""
    prompt: str | None = None
    """The prompt that it was judged by, where the scorer says so."""


class Layout(ABC):
    """The layout of a benchmark."""

    takes: ClassVar[int | None] = None
    """How many images of each prompt it takes; None for any number."""
    results: ClassVar[tuple[str, ...]]
    """Patterns of the files that its scorer writes."""

    @abstractmethod
    def pictures(self, drawn: Sequence[DrawnPrompt]) -> list[ExportedPicture]:
        """Name the pictures of a tree.

        Raises:
            InputError: for a prompt that cannot be a file's name.
        """

    def texts(self, drawn: Sequence[DrawnPrompt]) -> dict[str, str]:
        """The texts of a tree by their paths below it."""
        return {}

    def shared(self, trees: Mapping[str, Sequence[DrawnPrompt]]) -> dict[str, str]:
        """The texts beside the trees."""
        return {}

    @abstractmethod
    def read(self, file: Path) -> Iterator[Scored]:
        """Read a file of scores.

        Raises:
            InputError: for a file that the scorer does not write.
        """


def finite(value: Any, where: str) -> float:
    """A score that is a number.

    Raises:
        InputError: for anything else.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: a score is a number, not {shown(value)}")
    return number
