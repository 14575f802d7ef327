"""Tables of a summary in Markdown and in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from asyncdiff_cli.engine.evaluation.cells import Cell, Mark, aligned, heading
from asyncdiff_cli.engine.evaluation.summary import Summary
from asyncdiff_cli.engine.evaluation.tables import OURS, TableBlock, blocks, category_blocks
from asyncdiff_cli.engine.text import visible


def to_markdown(summary: Summary) -> str:
    """A table per block, below its title. **Best** and <u>second best</u>."""
    return "\n".join(markdown_table(b) for b in (*blocks(summary), *category_blocks(summary)))


def markdown_table(block: TableBlock) -> str:
    """A table in Markdown, below its title."""
    styles: dict[Mark, str] = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
    lines = [
        [escape_markdown(heading(name)) for name in block.columns],
        ["---:" if aligned(name) == "right" else "---" for name in block.columns],
    ]
    for row in block.rows:
        marked = (styles[cell.mark].format(escape_markdown(cell.text)) for cell in row)
        beside = (f"{cell.difference} {cell.interval}" for cell in row)
        lines.append([" ".join(pair).strip() for pair in zip(marked, beside, strict=True)])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{escape_markdown(block.title)}\n\n{table}"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in a table, whose rows are lines."""
    return re.sub(r"([\\|*`<])", r"\\\1", visible(" ".join(text.splitlines())))


def to_latex(summary: Summary) -> str:
    r"""A `tabular` per block, below its caption as a comment; needs \usepackage{booktabs}.

    Intervals have lines of their own: four metrics then fit into the width of a page.
    """
    return "\n".join(_latex(b) for b in (*blocks(summary), *category_blocks(summary)))


def _latex(block: TableBlock) -> str:
    alignment = "".join(aligned(name)[0] for name in block.columns)
    headings = " & ".join(escape_latex(heading(name)) for name in block.columns)
    space = "\\addlinespace\n" if block.source == OURS else ""
    rows = space.join(_latex_row(row) for row in block.rows)
    return (
        f"% \\caption{{{escape_latex(block.title)}.}}\n\\begin{{tabular}}{{{alignment}}}\n"
        f"\\toprule\n{headings} \\\\\n\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n"
    )


def _latex_row(row: Sequence[Cell]) -> str:
    styles: dict[Mark, str] = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
    small = r"{{\scriptsize {}}}"
    first, second = [], []
    for cell in row:
        number = not isinstance(cell.value, str)
        text, *beside = (
            part.replace("-", "$-$") if number else escape_latex(part)
            for part in (cell.text, cell.difference, cell.interval)
        )
        difference, interval = (small.format(part) if part else "" for part in beside)
        first.append(f"{styles[cell.mark].format(text)} {difference}".strip())
        second.append(interval)
    lines = [first, second] if any(second) else [first]
    return "".join(f"{' & '.join(line)} \\\\\n" for line in lines)


_LATEX = str.maketrans({
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a row, these two belong to its command
    "*": "{*}",
    "γ": r"$\gamma$",
    "↓": r"$\downarrow$",
    "\n": " ",
})  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return text.translate(_LATEX)
