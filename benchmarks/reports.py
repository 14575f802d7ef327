"""What the long benchmarks leave: a folder a row, a table, and a report as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.files import write_text


def slug(name: str) -> str:
    """The folder of a row."""
    kept = (letter if letter.isalnum() or letter == "+" else "-" for letter in name)
    return "-".join(filter(None, "".join(kept).split("-")))


def table_of(cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whose second line aligns its columns."""
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def write_report(report: Any, markdown: str, stem: Path) -> list[Path]:
    """Write a report beside what is to be read of it; the files.

    Args:
        report: JSON values.
        stem: of both files, without their suffixes.
    """
    files = [stem.with_suffix(suffix) for suffix in (".json", ".md")]
    write_text(files[0], json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(files[1], markdown)
    return files
