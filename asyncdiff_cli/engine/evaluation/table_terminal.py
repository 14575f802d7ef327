"""Tables of a summary in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncdiff_cli.engine.evaluation.cells import Mark, aligned, heading
from asyncdiff_cli.engine.evaluation.summary import Summary
from asyncdiff_cli.engine.evaluation.tables import blocks, first_category_blocks
from asyncdiff_cli.engine.text import visible

if TYPE_CHECKING:
    from rich.table import Table


def to_rich(summary: Summary) -> list[Table]:
    """A table per block, and those by category of the first reward and of imported scores.

    The best is bold, the second best underlined; intervals are below.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    styles: dict[Mark, str] = {"": "", "best": "bold", "second": "underline"}
    tables = []
    for block in (*blocks(summary), *first_category_blocks(summary)):
        table = Table(
            title=Text(visible(block.title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False
        )
        for name in block.columns:
            longest = max(map(len, heading(name).split()))
            table.add_column(Text(visible(heading(name))), justify=aligned(name), min_width=longest)
        for row in block.rows:
            table.add_row(*(
                Text.assemble(
                    (visible(cell.text), styles[cell.mark]),
                    (f" {cell.difference}\n{cell.interval}".rstrip(), "dim"),
                )
                for cell in row
            ))  # fmt: skip
        tables.append(table)
    return tables
