"""GenEval 2 (Kamath et al., 2025), as facebookresearch/GenEval2 reads it.

benchmark_data.jsonl     the lines of geneval2_data.jsonl whose prompts were drawn
TREE.json                the path of each prompt's picture
TREE/00000.png           the pictures, by the places of the prompts in geneval2_data.jsonl
TREE/score_lists.json    a list of scores for each prompt, by evaluation.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.layouts.base import (
    DrawnPrompt,
    ExportedPicture,
    Layout,
    Scored,
    finite,
)
from asyncdiff_cli.engine.reading import problem, read_text

ROUNDING = 0.01
"""How far above 1 a sum of probabilities in half precision may be."""
_LISTS = TypeAdapter(list[list[float]])


class GenEval2(Layout):
    """How likely a visual language model is to answer a prompt's questions right.

    The scores of a picture are one per question; their geometric mean is Soft-TIFA GM.
    """

    takes: ClassVar[int | None] = 1
    results: ClassVar[tuple[str, ...]] = ("score_lists.json",)

    def pictures(self, drawn: Sequence[DrawnPrompt]) -> list[ExportedPicture]:
        return [
            ExportedPicture(f"{place:05d}.png", rows, str(number))
            for number, (place, _, rows) in enumerate(drawn)
        ]

    def shared(self, trees: Mapping[str, Sequence[DrawnPrompt]]) -> dict[str, str]:
        drawn = next(iter(trees.values()))
        lines = (json.dumps(prompt.values, ensure_ascii=False) for _, prompt, _ in drawn)
        paths = {
            tree: {prompt.prompt: f"{tree}/{place:05d}.png" for place, prompt, _ in drawn}
            for tree, drawn in trees.items()
        }
        return {
            "benchmark_data.jsonl": "".join(f"{line}\n" for line in lines),
            **{f"{tree}.json": f"{json.dumps(of)}\n" for tree, of in paths.items()},
        }

    def read(self, file: Path) -> Iterator[Scored]:
        try:
            lists = _LISTS.validate_json(read_text(file))
        except ValidationError as error:
            raise InputError(f"{file} is no list of scores by prompt: {problem(error)}") from None
        for number, scores in enumerate(lists):
            where = f"{file}, prompt {number}"
            yield Scored(where, file.parent / str(number), [_geometric_mean(scores, where)])


def _geometric_mean(scores: Sequence[float], where: str) -> float:
    if not scores or not all(0 <= score <= 1 + ROUNDING for score in scores):
        raise InputError(f"{where}: its scores are probabilities, one or more, of 1 at most")
    with np.errstate(divide="ignore"):  # a probability of 0 makes the mean 0
        return finite(np.exp(np.log(scores).mean()), where)
