"""Columns of a store that other programs have measured: scores of its images, by their keys.

imported/NAME.parquet  a row per image that was scored: the columns of `Key`, and `score`

They lie beside the parts, which are never changed, and each takes the place of the one before it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.parts import write_part
from asyncdiff_cli.engine.evaluation.store_rows import COLUMNS, Key, find_problem, keys_of
from asyncdiff_cli.engine.files import IMPORTED, listed
from asyncdiff_cli.engine.reading import shown
from asyncdiff_cli.engine.text import one_line

COLUMN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
SHOWN_COLUMNS = ("steps", "mean_deviation", "source")
"""Columns of tables that a store does not have by these names."""
BESIDE = ("_difference", "_low", "_high", "_n")
"""What columns are called that stand beside a metric's."""
SCORE = "score"
_SCHEMA = pa.schema({**{name: COLUMNS[name] for name in Key._fields}, SCORE: pa.float64()})


def check_column_name(name: str, taken: Container[str]) -> None:
    """A column can be called so, beside those that are taken.

    Raises:
        InputError: if not.
    """
    if not COLUMN_NAME.fullmatch(name):
        raise InputError(
            "a column's name is of letters, digits, '.', '_' and '-', such as geneval, not"
            f" {shown(name)}"
        )
    if name in COLUMNS or name in SHOWN_COLUMNS or name in taken:
        raise InputError(f"there is a column {name} already: give another --name")
    if name.endswith(BESIDE):
        raise InputError(
            f"table.csv has columns that end in {', '.join(BESIDE)} for each metric: give another"
            f" --name than {name}"
        )


def column_names(store: Path) -> list[str]:
    """The columns that were imported."""
    return [path.stem for path in listed(store / IMPORTED, "[!.]*.parquet")]


def column_file(store: Path, name: str) -> Path:
    """The file of a column."""
    return store / IMPORTED / f"{name}.parquet"


def write_column(store: Path, name: str, scores: Mapping[Key, float]) -> Path:
    """Write the scores of images, in the order of their keys.

    Raises:
        AsyncDiffError: if they cannot be written.
    """
    rows = [{**key._asdict(), SCORE: scores[key]} for key in sorted(scores)]
    path = column_file(store, name)
    write_part(path, pa.Table.from_pylist(rows, schema=_SCHEMA))
    return path


def read_column(store: Path, name: str) -> dict[Key, float]:
    """The scores of images by their keys.

    Raises:
        AsyncDiffError: if the file is damaged.
    """
    path = column_file(store, name)
    try:
        table = pq.read_table(path, columns=_SCHEMA.names, page_checksum_verification=True)
        table = table.select(_SCHEMA.names).cast(_SCHEMA)
        if problem := find_problem(table):
            raise ValueError(problem)
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise AsyncDiffError(
            f"{path} is damaged ({one_line(error)}): delete it, and give import-scores again"
        ) from None
    return dict(zip(keys_of(table), table[SCORE].to_pylist(), strict=True))


def with_column(table: pa.Table, name: str, scores: Mapping[Key, float]) -> pa.Table:
    """Rows with a column of their scores, which is empty where there is none."""
    values = [scores.get(key) for key in keys_of(table)]
    return table.append_column(name, pa.array(values, pa.float64()))
