"""A summary as a table: for a terminal, in Markdown, CSV and LaTeX, and as JSON values.

A metric's mean has beside it the paired difference to the baseline with the 95 % interval. Where
the paper has measured the same backbone on the same dataset, its rows follow in a block of their
own. Best and second best are marked as in the paper's Tables 1 and 2.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asyncdiff_cli.engine.evaluation import paper
from asyncdiff_cli.engine.evaluation.set_metrics import NAMES as SET_METRICS
from asyncdiff_cli.engine.evaluation.setting import Setting
from asyncdiff_cli.engine.evaluation.summary import Result, Summary
from asyncdiff_cli.engine.files import write_text
from asyncdiff_cli.engine.rewards import GUARD, entry
from asyncdiff_cli.engine.statistics import Difference
from asyncdiff_cli.engine.text import visible

if TYPE_CHECKING:
    from rich.table import Table


HEADINGS = {
    "policy": "policy",
    "gamma": "γ",
    "steps": "steps",
    "bound": "bound",
    "mean_deviation": "mean D",
    "image_reward": "ImageReward",
    "hpsv2": "HPSv2",
    "hpsv2.1": "HPSv2.1",
    "clip": "CLIP score",
    "pickscore": "PickScore",
    GUARD: "noise (guard)",
    "cmmd": "CMMD ↓",
    "fid": "FID ↓",
    "fid_judge": "Fréchet distance (judge) ↓",
    "spectrum": "spectrum error, dB ↓",
}
"""Columns as people write them; other metrics go by their name."""
DIGITS = {"pickscore": 2, "cmmd": 3, "fid": 2, "fid_judge": 3, "spectrum": 3}
"""Digits behind the point, as in the paper; 4 for other metrics."""
OURS = "asyncdiff"

Mark = Literal["", "best", "second"]


class Cell(NamedTuple):
    """A place of a table."""

    value: str | float | Difference | None
    """The mean in full precision."""
    text: str
    difference: str = ""
    """The difference to the baseline, of the metrics of other rows."""
    interval: str = ""
    mark: Mark = ""


@dataclass(frozen=True)
class Block:
    """Rows of one source under a title of their own."""

    source: str
    """OURS, or a table of the paper."""
    title: str
    columns: tuple[str, ...]
    """Names of settings and metrics."""
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def of(
        cls, source: str, title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]
    ) -> Block:
        """Rows are by column; those of other columns are left out."""
        found = tuple(tuple(row[name] for name in columns) for row in rows)
        return cls(source, title, tuple(columns), found)


def blocks(summary: Summary, every_column: bool = False) -> list[Block]:
    """The rows of a summary, and the paper's where it has the same backbone and dataset.

    Args:
        every_column: also those settings in which no row differs.
    """
    ours, cell = _our_block(summary, every_column), _paper_cell(summary)
    return [ours] if cell is None else [ours, _paper_block(cell, every_column)]


def category_blocks(summary: Summary) -> list[Block]:
    """A block per reward with a column per category, as T2I-CompBench's tables have."""
    return [_category_block(summary, metric) for metric in summary.rewards if summary.categories]


def heading(name: str) -> str:
    """A column as people write it."""
    return HEADINGS.get(name, name)


def has_best(metric: str) -> bool:
    """Whether a best is marked: not of the guard, nor of a reward of which higher is not better."""
    return metric in SET_METRICS or (metric != GUARD and entry(metric).higher_is_better)


def marks(means: Sequence[float], digits: int) -> list[Mark]:
    """The means that are best and second best, as they print.

    As in the paper's tables: means that print alike share the best, and then there is no second;
    nor is there one where two share its place. Where all print alike, nothing is marked.
    """
    printed = [float(f"{mean:.{digits}f}") for mean in means]
    best, *others = sorted(printed, reverse=True)
    if best == min(printed):
        return [""] * len(printed)
    second = others[0] if printed.count(best) == printed.count(others[0]) == 1 else math.nan
    return ["best" if p == best else "second" if p == second else "" for p in printed]


def _paper_cell(summary: Summary) -> paper.Cell | None:
    settings = summary.settings
    return paper.reported(settings.get("backbone", ""), settings.get("dataset", ""))


def _differing(summary: Summary) -> list[str]:
    """The settings in which rows differ, beside the policy."""
    settings = [result.setting for result in summary.results]
    differs = {
        "gamma": any(setting.gamma != 1 for setting in settings),
        "steps": len({setting.steps for setting in settings}) > 1,
        "bound": len({r.setting.bound for r in summary.results if not r.is_baseline}) > 1,
    }
    return [name for name in differs if differs[name]]


def _our_block(summary: Summary, every_column: bool) -> Block:
    differing = ["gamma", "steps", "bound"] if every_column else _differing(summary)
    columns = ["policy", *differing, "mean_deviation", *summary.metrics]
    cells = {metric: _cells(summary, metric) for metric in summary.metrics}
    rows = [
        _setting_cells(result) | {metric: own[result.setting] for metric, own in cells.items()}
        for result in summary.results
    ]
    return Block.of(OURS, _title(summary) + _compared(summary), columns, rows)


def _category_block(summary: Summary, metric: str) -> Block:
    columns = {
        f"{name} ({own.prompts:,})": _cells(own, metric) for name, own in summary.categories.items()
    }
    rows = [
        _setting_cells(result)
        | {name: cells.get(result.setting, Cell(None, "")) for name, cells in columns.items()}
        for result in summary.results
    ]
    title = f"{heading(metric)} by category ({_title(summary)})"
    return Block.of(OURS, title, ["policy", *_differing(summary), *columns], rows)


def _cells(summary: Summary, metric: str) -> dict[Setting, Cell]:
    """The metric of each row."""
    marked = zip(summary.results, _marks_by_steps(summary, metric), strict=True)
    return {
        result.setting: metric_cell(metric, result.metrics[metric], not result.is_baseline, mark)
        for result, mark in marked
    }


def _paper_block(cell: paper.Cell, every_column: bool) -> Block:
    settings = ["gamma", "steps", "bound"] if every_column else []
    best = {
        metric: marks([row.metrics[metric] for row in cell.rows], digits_of(metric))
        for metric in paper.METRICS
    }
    rows = [
        {
            "policy": Cell(row.policy, row.policy),
            "gamma": Cell(1.0, ""),
            "steps": Cell(cell.steps, str(cell.steps)),
            "bound": Cell(row.bound, ""),
            "mean_deviation": deviation_cell(row.mean_deviation),
        }
        | {
            metric: Cell(mean, f"{mean:.{digits_of(metric)}f}", mark=best[metric][place])
            for metric, mean in row.metrics.items()
        }
        for place, row in enumerate(cell.rows)
    ]
    source = f"AsyncDiff paper, Table {cell.table}"
    title = f"{source}: {cell.model} on {cell.dataset}, {cell.steps} steps"
    columns = ["policy", *settings, "mean_deviation", *paper.METRICS]
    return Block.of(source, title, columns, rows)


def _marks_by_steps(summary: Summary, metric: str) -> list[Mark]:
    """The marks of every row, among those of as many steps."""
    found: list[Mark] = [""] * len(summary.results)
    if not has_best(metric):
        return found
    steps = [result.setting.steps for result in summary.results]
    for count in set(steps):
        places = [place for place, own in enumerate(steps) if own == count]
        sign = -1 if metric in SET_METRICS else 1  # they are distances
        means = [sign * summary.results[place].metrics[metric].mean for place in places]
        for place, mark in zip(places, marks(means, digits_of(metric)), strict=True):
            found[place] = mark
    return found


def _setting_cells(result: Result) -> dict[str, Cell]:
    policy, gamma, bound, steps = result.setting
    bounded = math.isfinite(bound) and not result.is_baseline
    return {
        "policy": Cell(policy, policy),
        "gamma": Cell(gamma, "" if result.is_baseline else f"{gamma:g}"),
        "steps": Cell(steps, str(steps)),
        "bound": Cell(bound if bounded else None, f"{bound:g}" if bounded else ""),
        "mean_deviation": deviation_cell(result.mean_deviation),
    }


def deviation_cell(deviation: float) -> Cell:
    """A mean deviation."""
    return Cell(deviation, signed(deviation, 3))


def metric_cell(metric: str, found: Difference, compared: bool = True, mark: Mark = "") -> Cell:
    """A mean, and how it differs from the baseline's unless it is that one."""
    digits = digits_of(metric)
    text = f"{found.mean:.{digits}f}"
    if not compared:
        return Cell(found, text, mark=mark)
    interval = f"[{signed(found.low, digits)}, {signed(found.high, digits)}]"
    return Cell(found, text, signed(found.difference, digits), interval, mark)


def _title(summary: Summary) -> str:
    names = [str(summary.settings[k]) for k in ("backbone", "dataset") if k in summary.settings]
    steps = {result.setting.steps for result in summary.results}
    parts = [
        " on ".join(names),
        f"{steps.pop()} steps" if len(steps) == 1 else "",
        f"{summary.prompts} prompts",
        f"{summary.partial} more not complete" if summary.partial else "",
    ]
    what = "mean, and paired difference to the baseline with its 95 % interval"
    return f"{', '.join(filter(None, parts))}: {what}"


def _compared(summary: Summary) -> str:
    """What set metrics were measured against, to stand behind a title."""
    own = summary.settings.get("set_metrics", {})
    if not summary.set_metrics or not own:
        return ""
    images = next(iter(own.values()))["reference_images"]
    return f"; ↓: distance of all {summary.prompts:,} pictures to {images:,} of the reference"


def digits_of(metric: str) -> int:
    """How many of a metric's digits are written behind the point."""
    return DIGITS.get(metric, 4)


def signed(value: float, digits: int) -> str:
    """A number with its sign, as differences are written."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # a zero without its minus


def _aligned(column: str) -> Literal["left", "right"]:
    """Numbers are right, but metrics left: their means stand first, differences follow."""
    return "right" if column in ("gamma", "steps", "bound", "mean_deviation") else "left"


def to_rich(summary: Summary) -> list[Table]:
    """A table per block, and one of the first reward by category.

    The best is bold, the second best underlined; intervals are below.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    styles: dict[Mark, str] = {"": "", "best": "bold", "second": "underline"}
    tables = []
    for block in (*blocks(summary), *category_blocks(summary)[:1]):
        table = Table(
            title=Text(visible(block.title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False
        )
        for name in block.columns:
            longest = max(map(len, heading(name).split()))
            table.add_column(
                Text(visible(heading(name))), justify=_aligned(name), min_width=longest
            )
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


def to_markdown(summary: Summary) -> str:
    """A table per block, below its title. **Best** and <u>second best</u>."""
    return "\n".join(_markdown(b) for b in (*blocks(summary), *category_blocks(summary)))


def _markdown(block: Block) -> str:
    styles: dict[Mark, str] = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
    lines = [
        [escape_markdown(heading(name)) for name in block.columns],
        ["---:" if _aligned(name) == "right" else "---" for name in block.columns],
    ]
    for row in block.rows:
        marked = (styles[cell.mark].format(escape_markdown(cell.text)) for cell in row)
        beside = (f"{cell.difference} {cell.interval}" for cell in row)
        lines.append([" ".join(pair).strip() for pair in zip(marked, beside, strict=True)])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{escape_markdown(block.title)}\n\n{table}"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in a table."""
    return re.sub(r"([\\|*`<])", r"\\\1", text)


def to_csv(summary: Summary) -> str:
    """A line per row of all blocks, in full precision and with every column.

    A metric m of ours has the columns m (the mean), m_difference, m_low, m_high and m_n. The
    paper's rows have the means alone; `source` tells them apart. Rows of one category follow, for a
    set that has some. What a row lacks is empty.
    """
    every = [("", block) for block in blocks(summary, every_column=True)]
    every += [(name, _our_block(own, True)) for name, own in summary.categories.items()]
    records = [
        {"source": block.source}
        | ({"category": category} if summary.categories else {})
        | _record(block.columns, row)
        for category, block in every
        for row in block.rows
    ]
    names = dict.fromkeys(name for record in records for name in record)
    file = io.StringIO()
    rows = csv.DictWriter(file, list(names), lineterminator="\n")
    rows.writeheader()
    rows.writerows(records)
    return file.getvalue()


def _record(columns: Sequence[str], row: Sequence[Cell]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, (value, *_) in zip(columns, row, strict=True):
        if isinstance(value, Difference):
            record[name] = value.mean
            record |= {f"{name}_{key}": own for key, own in vars(value).items() if key != "mean"}
        else:
            record[name] = value
    return record


def to_latex(summary: Summary) -> str:
    r"""A `tabular` per block, below its caption as a comment; needs \usepackage{booktabs}.

    Intervals have lines of their own: four metrics then fit into the width of a page.
    """
    return "\n".join(_latex(b) for b in (*blocks(summary), *category_blocks(summary)))


def _latex(block: Block) -> str:
    alignment = "".join(_aligned(name)[0] for name in block.columns)
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


def to_json(summary: Summary) -> dict[str, Any]:
    """JSON values: our rows with differences and deviations by step, and the paper's, if any."""
    cell = _paper_cell(summary)
    return {
        "settings": dict(summary.settings),
        "prompts": summary.prompts,
        "partial": summary.partial,
        "rows": [
            {
                **{name: cell.value for name, cell in _setting_cells(result).items()},
                "deviations": result.deviations.mean(0).tolist(),
                "at_bound": result.at_bound.tolist(),
                "seconds": result.seconds,
                "metrics": {name: vars(found) for name, found in result.metrics.items()},
                **_categories(summary, result),
            }
            for result in summary.results
        ],
        "paper": cell and {
            "source": f"AsyncDiff paper, Table {cell.table}",
            "steps": cell.steps,
            "rows": [row._asdict() for row in cell.rows],
        },
    }  # fmt: skip


def _categories(summary: Summary, result: Result) -> dict[str, Any]:
    """A row's metrics by category, for a set that has some."""
    found = {
        name: {metric: vars(value) for metric, value in own.metrics.items()}
        for name, each in summary.categories.items()
        if (own := each.result(result.setting)) is not None
    }
    return {"categories": found} if found else {}


def write_tables(summary: Summary, directory: Path) -> list[Path]:
    """Write table.md, table.csv and table.tex; their paths.

    Raises:
        AsyncDiffError: if one cannot be written.
    """
    texts = {"md": to_markdown(summary), "csv": to_csv(summary), "tex": to_latex(summary)}
    for suffix, text in texts.items():
        write_text(directory / f"table.{suffix}", text)
    return [directory / f"table.{suffix}" for suffix in texts]
