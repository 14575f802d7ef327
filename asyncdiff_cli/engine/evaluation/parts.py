"""Parts: the Parquet files of a store's rows. They are never changed, but put together into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.evaluation.store_rows import Key, find_problem, unseen_rows
from asyncdiff_cli.engine.files import write_atomically
from asyncdiff_cli.engine.text import one_line

ROW_GROUP = 4096
"""Rows of a part of several that are in memory at once."""
PARQUET_OPTIONS = {"compression": "zstd", "write_page_checksum": True}


class PartGoneError(Exception):
    """A part that was listed is not there any more."""


def row_groups(part: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a part, as many at a time as were written at once.

    Raises:
        AsyncDiffError: if it cannot be read, or does not hold what the schema says.
    """
    if part.exists() and not part.is_file():  # a pipe would be waited for
        raise AsyncDiffError(f"{part} is not a file: remove it")
    try:
        file = pq.ParquetFile(part, page_checksum_verification=True)
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        if file.metadata.num_rows != sum(group.num_rows for group in groups):
            # it has no checksum, as the pages have
            raise ValueError("its footer counts the rows in two ways")
        for number in range(file.num_row_groups):
            group = file.read_row_group(number, schema.names, use_threads=False)
            group = group.select(schema.names).cast(schema)
            if problem := find_problem(group):
                raise ValueError(problem)
            yield group
    except PermissionError as error:
        raise AsyncDiffError(f"cannot read {part}: {error.strerror or error}") from None
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        if not part.exists():
            raise PartGoneError from None
        raise AsyncDiffError(
            f"{part} is damaged ({one_line(error)}): delete it, and evaluate into the same --out"
            " to draw its images again"
        ) from None


def write_part(path: Path, rows: pa.Table) -> None:
    """Write rows as a part.

    Raises:
        AsyncDiffError: if it cannot be written.
    """
    write_atomically(path, lambda file: pq.write_table(rows, file, **PARQUET_OPTIONS))


def write_whole(path: Path, parts: Sequence[Path], schema: pa.Schema) -> None:
    """Write the distinct rows of several parts as one, some at a time.

    Raises:
        PartGoneError: if one of them is not there any more.
        AsyncDiffError: if one is damaged, or it cannot be written.
    """
    write_atomically(path, lambda file: _copy(parts, file, schema))


def _copy(parts: Sequence[Path], file: Path, schema: pa.Schema) -> None:
    seen: set[Key] = set()
    waiting: list[pa.Table] = []
    with pq.ParquetWriter(file, schema, **PARQUET_OPTIONS) as writer:
        for rows in (rows for part in parts for rows in row_groups(part, schema)):
            waiting.append(unseen_rows(rows, seen))
            if sum(map(len, waiting)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
