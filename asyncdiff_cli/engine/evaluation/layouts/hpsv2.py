"""The benchmark of HPS v2 (Wu et al., 2023), as the package hpsv2 reads it.

    TREE/anime/00000.jpg     the pictures of a style, by the places of the prompts in its list
    scores.jsonl             a line for each picture: {"image": PATH, "score": NUMBER}

The package prints means of styles and keeps no score, so the file is one's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from asyncdiff_cli.engine.evaluation.layouts.base import (
    DrawnPrompt,
    ExportedPicture,
    Layout,
    Scored,
    finite,
)
from asyncdiff_cli.engine.fields import validated
from asyncdiff_cli.engine.prompts.files import read_entries


class _Line(BaseModel):
    image: str
    score: Any


class HPSv2Benchmark(Layout):
    """How much people would prefer a picture, by the network of HPS v2."""

    takes: ClassVar[int | None] = 1
    results: ClassVar[tuple[str, ...]] = ("scores.jsonl",)

    def pictures(self, drawn: Sequence[DrawnPrompt]) -> list[ExportedPicture]:
        files = [(f"{prompt.name}.jpg", rows) for _, prompt, rows in drawn]
        return [ExportedPicture(file, rows, file) for file, rows in files]

    def read(self, file: Path) -> Iterator[Scored]:
        for where, values in read_entries(file):
            line = validated(_Line, values, where)
            yield Scored(where, Path(line.image), [finite(line.score, where)])
