"""Each section's rows as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from asyncdiff_cli import render
from benchmarks.gpu.rows import Row

NOTES = ("skipped", "failed")
"""What stands at the end of a row, in place of numbers."""


def table(section: str, rows: Sequence[Row]) -> Table:
    """A column for whatever a row of the section has."""
    shown = [_flat(row) for row in rows]
    headings = list(dict.fromkeys(key for row in shown for key in row))
    headings.sort(key=lambda key: key == "note")  # which is stable
    made = Table(*(heading.replace("_", " ") for heading in headings), title=section)
    for row in shown:
        made.add_row(*(row.get(heading, "") for heading in headings))
    return made


def _flat(row: Row) -> dict[str, str]:
    cells: dict[str, str] = {}
    for key, value in row.items():
        if key == "low":
            cells["95 % interval"] = f"{value:.4f} … {row['high']:.4f}"
        elif key in NOTES:
            cells["note"] = f"{key}: {value}"
        elif isinstance(value, dict):
            cells |= {name: _cell(name, own) for name, own in value.items() if name not in cells}
        elif key not in ("section", "high"):
            cells[key] = _cell(key, value)
    return cells


def _cell(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if value is not None and key.endswith("_bytes"):
        return render.size(value)
    if isinstance(value, float):
        return f"{value:.4f}" if key == "ratio" else f"{value:.4g}"
    return "" if value is None else str(value)
