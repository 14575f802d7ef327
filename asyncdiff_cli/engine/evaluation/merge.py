"""Several stores of one evaluation, put together into a new one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.imported import read_column, write_column
from asyncdiff_cli.engine.evaluation.store import Store, reserved
from asyncdiff_cli.engine.evaluation.store_rows import Key, described, distinct_rows
from asyncdiff_cli.engine.evaluation.store_settings import differing
from asyncdiff_cli.engine.files import REFERENCE, write_atomically
from asyncdiff_cli.engine.reading import MEBIBYTE

LARGEST_IMAGE = 1024 * MEBIBYTE
"""Bytes of a picture that are copied."""


def merge(sources: Sequence[Path], out: Path) -> Store:
    """Put the rows and images of several stores of one evaluation into a new one.

    Raises:
        InputError: for stores of different evaluations, one label of different policies, or an
            `out` that is there already.
        AsyncDiffError: for a damaged one, or if it cannot be written.
    """
    stores = [Store(path) for path in sources]
    if not stores:
        raise InputError("there is nothing to merge: give the stores")
    for store in stores[1:]:
        if changed := differing(stores[0].settings, store.settings):
            raise InputError(f"{store.path} and {stores[0].path} differ in {changed}")
    with reserved(out):
        if not Store.is_new(out):
            raise InputError(f"{out} is there already: give another directory")
        return _put_together(stores, out)


def _put_together(stores: Sequence[Store], out: Path) -> Store:
    """The new store of the rows and images of others, of equal settings."""
    table = pa.concat_tables([store.read() for store in stores])
    labels = [label for label, _ in described(table)]
    if label := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(f"{label} is not the same policy in all of them")
    files = {
        name: _find(name, stores) for name in filter(None, table["image"].unique().to_pylist())
    }
    references = [file for s in stores if (file := s.path / REFERENCE).is_file()]
    if stores[0].set_metrics and not references:
        raise AsyncDiffError(f"{REFERENCE} is in none of the stores")
    imported = dict.fromkeys(name for store in stores for name in store.imported)
    scores = {name: _scores(name, stores) for name in imported}
    merged = Store(out, stores[0].settings)
    merged.begin()
    for name, file in files.items():
        write_atomically(merged.image(name), partial(shutil.copyfile, file))
    if merged.set_metrics:
        write_atomically(out / REFERENCE, partial(shutil.copyfile, references[0]))
    if len(table):
        merged.add(distinct_rows(table))
    for name, column in scores.items():
        write_column(out, name, column)
    return merged


def _scores(name: str, stores: Sequence[Store]) -> dict[Key, float]:
    """A column of what other programs have said of images of any of the stores.

    Raises:
        InputError: for an image of two scores.
    """
    merged: dict[Key, float] = {}
    for store in stores:
        scores = read_column(store.path, name) if name in store.imported else {}
        if any(merged.get(key, score) != score for key, score in scores.items()):
            raise InputError(f"{store.path} has other scores in {name} of the same images")
        merged |= scores
    return merged


def _find(name: str, stores: Sequence[Store]) -> Path:
    image = next((file for store in stores if (file := store.image(name)).is_file()), None)
    if image is None:
        raise AsyncDiffError(f"the image {name} is in none of the stores")
    if image.stat().st_size > LARGEST_IMAGE:
        raise AsyncDiffError(f"{image} has more than {LARGEST_IMAGE // MEBIBYTE} MiB: no image has")
    image.open("rb").close()  # what cannot be read is not said of its copy
    return image
