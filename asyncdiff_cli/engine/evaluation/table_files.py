"""The tables of a summary as files."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli.engine.evaluation.summary import Summary
from asyncdiff_cli.engine.evaluation.table_data import to_csv
from asyncdiff_cli.engine.evaluation.table_markup import to_latex, to_markdown
from asyncdiff_cli.engine.files import write_text


def write_tables(summary: Summary, directory: Path) -> list[Path]:
    """Write table.md, table.csv and table.tex; their paths.

    Raises:
        AsyncDiffError: if one cannot be written.
    """
    texts = {"md": to_markdown(summary), "csv": to_csv(summary), "tex": to_latex(summary)}
    for suffix, text in texts.items():
        write_text(directory / f"table.{suffix}", text)
    return [directory / f"table.{suffix}" for suffix in texts]
