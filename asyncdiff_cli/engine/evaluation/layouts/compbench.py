"""T2I-CompBench (Huang et al., 2023), as Karine-Huang/T2I-CompBench reads it.

TREE/color/samples/PROMPT_000000.png        the pictures of a category, numbered
TREE/color/annotation_blip/vqa_result.json  a score for each number, by the category's scorer
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.layouts.base import (
    DrawnPrompt,
    ExportedPicture,
    Layout,
    Scored,
    finite,
)
from asyncdiff_cli.engine.reading import problem, read_text, shown

SCORERS = {
    "color": "annotation_blip",
    "shape": "annotation_blip",
    "texture": "annotation_blip",
    "spatial": "labels/annotation_obj_detection_2d",
    "3d_spatial": "labels/annotation_obj_detection_3d",
    "numeracy": "annotation_num",
    "non_spatial": "annotation_clip",
    "complex": "annotation_3_in_1",
}
"""Where the scorer that the benchmark has for a category puts its results."""
LONGEST_NAME = 255
"""Bytes of a file's name."""


class _Answer(BaseModel):
    question_id: int
    answer: Any


_ANSWERS = TypeAdapter(list[_Answer])


class CompBench(Layout):
    """BLIP-VQA, UniDet, CLIP or all three, by category."""

    results: ClassVar[tuple[str, ...]] = tuple(
        f"{category}/{scorer}/vqa_result.json" for category, scorer in SCORERS.items()
    )

    def pictures(self, drawn: Sequence[DrawnPrompt]) -> list[ExportedPicture]:
        pictures, counts = [], Counter[str]()
        for _, prompt, rows in drawn:
            category = prompt.category or ""
            for row in rows:
                number = counts[category]
                name = _named(prompt.prompt, number)
                counts[category] += 1
                pictures.append(
                    ExportedPicture(
                        f"{category}/samples/{name}", [row], f"{category}/{number}", category
                    )
                )
        return pictures

    def read(self, file: Path) -> Iterator[Scored]:
        try:
            answers = _ANSWERS.validate_json(read_text(file))
        except ValidationError as error:
            raise InputError(f"{file} is no list of answers: {problem(error)}") from None
        folder = _folder_of(file)
        for question, answer in ((answer.question_id, answer.answer) for answer in answers):
            where = f"{file}, question_id {question}"
            yield Scored(where, folder / str(question), [finite(answer, where)])


def _named(prompt: str, number: int) -> str:
    """The name of a picture, of which the scorers take the prompt and the number."""
    name = f"{prompt}_{number:06d}.png"
    if "_" in prompt or "/" in prompt or len(name.encode()) > LONGEST_NAME:
        raise InputError(
            "T2I-CompBench reads the prompt from the name of the file, so it has no '_' and no '/'"
            f" and at most {LONGEST_NAME} bytes: not {shown(prompt)}"
        )
    return name


def _folder_of(file: Path) -> Path:
    """The folder of the category whose scorer has written a file."""
    for category, scorer in SCORERS.items():
        depth = len(Path(scorer).parts)
        if file.match(f"{category}/{scorer}/{file.name}"):
            return file.parents[depth]
    raise InputError(
        f"{file} is not where the scorer of a category writes: give the directory of the trees, or"
        " TREE/color/annotation_blip/vqa_result.json"
    )
