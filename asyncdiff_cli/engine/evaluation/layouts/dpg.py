"""DPG-Bench (Hu et al., 2024), as TencentQQGYLab/ELLA reads it.

TREE/STEM.png                four pictures in a square, by the name of the prompt's file
TREE/dpg-bench_*_results.txt a line for each file, by dpg_bench/compute_dpg_bench.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.layouts.base import (
    DrawnPrompt,
    ExportedPicture,
    Layout,
    Scored,
    finite,
)
from asyncdiff_cli.engine.reading import read_text

SUMMARY = "Model: "
"""How the lines begin that follow those of files."""
_LINE = re.compile(r"(?P<path>.+?\.png)(?P<scores>(?:, [^,]+)+)")


class DPGBench(Layout):
    """The share of a prompt's questions that a visual question answerer says yes to."""

    takes: ClassVar[int | None] = 4
    results: ClassVar[tuple[str, ...]] = ("*_results.txt",)

    def pictures(self, drawn: Sequence[DrawnPrompt]) -> list[ExportedPicture]:
        return [
            ExportedPicture(f"{prompt.name}.png", rows, f"{prompt.name}.png")
            for _, prompt, rows in drawn
        ]

    def read(self, file: Path) -> Iterator[Scored]:
        for number, line in enumerate(read_text(file).splitlines(), 1):
            where = f"{file}:{number}"
            if line.startswith(SUMMARY):
                return
            found = _LINE.fullmatch(line)
            scores = [finite(v, where) for v in found["scores"].split(", ")[1:]] if found else []
            if found is None or len(scores) != 5:
                raise InputError(
                    f"{where}: a line is PATH.png, four scores and their mean (--pic-num 4)"
                )
            yield Scored(where, Path(found["path"]), scores[:4])
