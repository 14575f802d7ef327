"""What the scorer of a benchmark says of a store's images, as a column of the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.export import Export
from asyncdiff_cli.engine.evaluation.imported import (
    check_column_name,
    column_file,
    read_column,
    write_column,
)
from asyncdiff_cli.engine.evaluation.layouts.base import ExportedPicture, Scored
from asyncdiff_cli.engine.evaluation.set_metrics import NAMES as SET_METRICS
from asyncdiff_cli.engine.evaluation.store_rows import Key
from asyncdiff_cli.engine.rewards import COMPOSITE
from asyncdiff_cli.engine.text import first_few

Parts = tuple[str, ...]
"""The parts of a path: the tree, and what a scorer calls a picture below it."""


class ImportedColumn(NamedTuple):
    """A column that was written."""

    scores: int
    before: int | None
    """The scores of the column that it took the place of; None for a new one."""


def import_column(export: Export, results: Path, name: str) -> ImportedColumn:
    """Read the results of a scorer into a column.

    Args:
        export: what its pictures are of.
        results: a file that it has written, or a directory with those of several trees.

    Raises:
        InputError: for a name that is taken; and for results that are not the scorer's, are of
            other pictures, or lack some of those that other policies have.
        AsyncDiffError: if the column cannot be written.
    """
    store = export.store
    check_column_name(name, [*store.schema.names, *SET_METRICS, COMPOSITE])
    pictures = {
        (tree, *Path(picture.said).parts): picture
        for tree, own in export.pictures.items()
        for picture in own
    }
    found = _matched(export, pictures, _read(export, results))
    _check_whole(export, pictures, found)
    scores: dict[Key, float] = {}
    for parts, scored in found.items():
        for row, score in zip(pictures[parts].rows, scored.scores, strict=True):
            scores[Key(*(row[field] for field in Key._fields))] = score
    is_new = not column_file(store.path, name).exists()
    before = None if is_new else len(read_column(store.path, name))
    write_column(store.path, name, scores)
    return ImportedColumn(len(scores), before)


def _read(export: Export, results: Path) -> Iterator[tuple[Path, Scored]]:
    """What the files of a scorer say, each with its directory."""
    layout, files = export.layout, [results]
    if results.is_dir():
        files = sorted({file for pattern in layout.results for file in results.rglob(pattern)})
    if not files:
        raise InputError(
            f"{results} holds no results: the scorer writes {first_few(layout.results, 8)}"
        )
    for file in files:
        for scored in layout.read(file.absolute()):
            yield file.absolute().parent, scored


def _matched(
    export: Export,
    pictures: dict[Parts, ExportedPicture],
    results: Iterable[tuple[Path, Scored]],
) -> dict[Parts, Scored]:
    """The results by the pictures that they are of."""
    found: dict[Parts, Scored] = {}
    for directory, scored in results:
        parts = _parts(directory / scored.picture, pictures)
        if parts is None:
            raise InputError(
                f"{scored.where}: {scored.picture} is no picture of {export.store.path}, whose"
                f" folders are {first_few([*export.trees])}"
            )
        if parts in found:
            raise InputError(
                f"{scored.where}: {scored.picture} has a score already, from {found[parts].where}:"
                " give the results of one run"
            )
        prompt = pictures[parts].rows[0]["prompt"]
        if scored.prompt not in (None, prompt):
            raise InputError(f"{scored.where}: the prompt of {scored.picture} is {prompt!r} here")
        found[parts] = scored
    return found


def _parts(path: Path, pictures: dict[Parts, ExportedPicture]) -> Parts | None:
    """The picture that a path ends in."""
    lengths = {len(parts) for parts in pictures}
    ends = (path.parts[-length:] for length in lengths)
    return next((parts for parts in ends if parts in pictures), None)


def _check_whole(
    export: Export, pictures: dict[Parts, ExportedPicture], found: dict[Parts, Scored]
) -> None:
    """Check that of each part of the benchmark that was scored every picture was.

    Raises:
        InputError: if not, naming the first that was not.
    """
    groups = {pictures[parts].group for parts in found}
    lacking = [
        parts
        for parts, picture in pictures.items()
        if picture.group in groups and parts not in found
    ]
    if lacking:
        raise InputError(
            f"there is no score of {'/'.join(lacking[0])} ({len(lacking):,} of {len(pictures):,}"
            f" pictures of {export.store.path} lack one): score all trees, and export again if the"
            " store has grown"
        )
    if not found:
        raise InputError("the results have no scores")
