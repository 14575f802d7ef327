"""GenEval (Ghosh et al., 2023), as djghosh13/geneval reads it.

TREE/00000/metadata.jsonl       the line of the prompt's place in evaluation_metadata.jsonl
TREE/00000/samples/0000.png     a picture for each noise
TREE/results.jsonl              a line for each picture, by evaluation/evaluate_images.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from asyncdiff_cli.engine.evaluation.layouts.base import (
    DrawnPrompt,
    ExportedPicture,
    Layout,
    Scored,
)
from asyncdiff_cli.engine.fields import validated
from asyncdiff_cli.engine.prompts.files import read_entries


class _Judged(BaseModel):
    filename: str
    prompt: str
    correct: bool


class GenEval(Layout):
    """Whether a detector finds what is asked for: 1 or 0."""

    results: ClassVar[tuple[str, ...]] = ("results.jsonl",)

    def pictures(self, drawn: Sequence[DrawnPrompt]) -> list[ExportedPicture]:
        files = [
            (f"{place:05d}/samples/{number:04d}.png", row)
            for place, _, rows in drawn
            for number, row in enumerate(rows)
        ]
        return [ExportedPicture(file, [row], file) for file, row in files]

    def texts(self, drawn: Sequence[DrawnPrompt]) -> dict[str, str]:
        return {
            f"{place:05d}/metadata.jsonl": json.dumps(prompt.values) for place, prompt, _ in drawn
        }

    def read(self, file: Path) -> Iterator[Scored]:
        for where, values in read_entries(file):
            judged = validated(_Judged, values, where)
            yield Scored(where, Path(judged.filename), [float(judged.correct)], judged.prompt)
