"""The results of an evaluation: one row per image, in Parquet files that are complete or not there.

settings.json    what all rows share, written with the first; another evaluation is refused
parts/*.parquet  the rows, in files that pandas, polars and DuckDB read
images/*.png     the images, if they are kept
imported/*.parquet  scores that other programs have given the images, if there are any
reference.safetensors  what set metrics compare with, if there are any

A row's key is (prompt_id, seed, policy, gamma, bound, num_inference_steps). A row that is there is
never drawn again, and one that two processes drew by mistake is read once.

Parts are never changed, but many are put into one, whose rows are then twice there for a moment:
what is written comes before what it replaces goes. So a kill loses nothing, several processes may
write and compact at once, and who reads while a part goes only has to look again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.imported import (
    check_column_name,
    column_names,
    read_column,
    with_column,
)
from asyncdiff_cli.engine.evaluation.parts import PartGoneError, row_groups, write_part, write_whole
from asyncdiff_cli.engine.evaluation.store_rows import Key, distinct_rows, keys_of, schema_of
from asyncdiff_cli.engine.evaluation.store_settings import (
    SETTINGS,
    STORE_FORMAT,
    differing,
    read_settings,
)
from asyncdiff_cli.engine.files import REFERENCE, REFUSED, inside, listed, write_text
from asyncdiff_cli.engine.locks import hold, turn

IMAGES = "images"
FAN_IN = 64
"""Parts of one process that are put into one, as are so many of these again."""


class Store:
    """Reads and writes a store.

    Args:
        path: its directory.
        settings: of one that is yet to be made there; else they are read.

    Raises:
        InputError: if the directory holds none, or one of another format.
    """

    def __init__(self, path: Path, settings: dict[str, Any] | None = None) -> None:
        self.path, self._begun = path, settings is None
        self._held: pa.Table | None = None
        self._written: list[list[Path]] = []  # the parts of this process, by how often compacted
        self.settings = read_settings(path) if settings is None else settings
        self.rewards = tuple(self.settings["rewards"])
        self.set_metrics = tuple(self.settings.get("set_metrics", {}))

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> Store:
        """The store at `path`: a new one where there is nothing, else one of equal settings.

        Nothing is written before the first row.

        Args:
            settings: JSON values that all rows share, with `rewards` by name, and `set_metrics` if
                there are any.

        Raises:
            InputError: if there is something else, naming what differs.
        """
        wanted = json.loads(json.dumps({"format": STORE_FORMAT, **settings}))
        store = cls(path, wanted if cls.is_new(path) else None)
        store._check(wanted)
        return store

    @classmethod
    def agree(
        cls,
        path: Path,
        settings: Mapping[str, Any],
        rewards: Sequence[str],
        set_metrics: Sequence[str] = (),
        reference: str | None = None,
        whole: bool = True,
    ) -> None:
        """Check, as `open`, what is known before models are loaded: names, and the reference's.

        Args:
            whole: whether those are all settings, and not only such as are known by then.

        Raises:
            InputError: as `open`.
        """
        if cls.is_new(path):
            return
        store = cls(path)
        named = store.settings.get("set_metrics", {})
        there = {
            **{name: value for name, value in store.settings.items() if name != "set_metrics"},
            "rewards": sorted(store.rewards),
            "set metrics": sorted(named),
            "reference": next((metric["reference"] for metric in named.values()), None),
        }
        wanted = {
            **{"format": STORE_FORMAT, **settings, "rewards": sorted(rewards)},
            **{"set metrics": sorted(set_metrics), "reference": reference},
        }
        store._differ(there if whole else {name: there.get(name) for name in wanted}, wanted)

    def _check(self, wanted: Mapping[str, Any]) -> None:
        self._differ(self.settings, wanted)

    def _differ(self, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        if changed := differing(there, wanted):
            raise InputError(
                f"{self.path} was evaluated with other settings, {changed}: give another --out"
            )

    def begin(self) -> None:
        """Write the settings of a new store, which come before all else that is in it.

        Raises:
            InputError: if another process has begun one of other settings since it was opened.
            AsyncDiffError: if it cannot be written.
        """
        if self._begun:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with turn(self.path):
            if self.is_new(self.path):
                text = json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n"
                write_text(self.path / SETTINGS, text)
            Store(self.path)._check(self.settings)
        self._begun = True

    @staticmethod
    def is_new(path: Path) -> bool:
        """Whether a store at `path` is yet to be made.

        Raises:
            InputError: if there is something else.
        """
        if (path / SETTINGS).exists():
            return False
        # what is hidden, images that were refused, and statistics of a reference are left of one
        # that ended before it began
        left = (REFUSED, REFERENCE)
        if path.exists() and (
            not path.is_dir() or any(file.name not in left for file in path.glob("[!.]*"))
        ):
            raise InputError(f"{path} is there already and no evaluation: give another --out")
        return True

    @property
    def schema(self) -> pa.Schema:
        """The columns of all rows, as `schema_of`."""
        return schema_of(self.rewards, self.set_metrics)

    @property
    def imported(self) -> tuple[str, ...]:
        """The columns of scores that other programs have given.

        Raises:
            InputError: for one that is called as a column of the rows.
        """
        names = column_names(self.path)
        for name in names:
            check_column_name(name, self.schema.names)
        return tuple(names)

    def parts(self) -> list[Path]:
        """The files of rows, in a fixed order."""
        return listed(self.path / "parts", "[!.]*.parquet")

    def keys(self) -> set[Key]:
        """What is there already."""
        return set(keys_of(self.read(Key._fields)))

    def write(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Add rows as one file, named after their keys; now and then compact those of this process.

        Raises:
            AsyncDiffError: if it cannot be written.
        """
        path = self.add(pa.Table.from_pylist([dict(row) for row in rows], schema=self.schema))
        self._settle(path)
        return path

    def add(self, table: pa.Table) -> Path:
        """Write rows of the store's schema."""
        self.begin()
        keys = [list(row.values()) for row in table.select(Key._fields).to_pylist()]
        digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]
        path = self.path / "parts" / f"{keys[0][0]:06d}-{digest}.parquet"
        write_part(path, table)
        return path

    def _settle(self, part: Path, level: int = 0) -> None:
        """Keep a part in mind, and compact those of its level once there are enough."""
        if level == len(self._written):
            self._written.append([])
        self._written[level].append(part)
        if len(self._written[level]) == FAN_IN:
            parts, self._written[level] = self._written[level], []
            if (whole := self._compact(parts)) is not None:
                self._settle(whole, level + 1)

    def compact(self) -> None:
        """Put all parts into one if there are many, each row once.

        Raises:
            AsyncDiffError: if one is damaged, or it cannot be written.
        """
        if len(parts := self.parts()) > FAN_IN:
            self._compact(parts)

    def _compact(self, parts: Sequence[Path]) -> Path | None:
        """One part in the place of several; None if another process has replaced some of them."""
        digest = hashlib.sha256("".join(part.name for part in parts).encode()).hexdigest()[:16]
        whole = self.path / "parts" / f"{parts[0].name.partition('-')[0]}-{digest}.parquet"
        try:
            write_whole(whole, parts, self.schema)
        except PartGoneError:
            return None
        for part in parts:
            part.unlink(missing_ok=True)
        return whole

    def read(self, columns: Iterable[str] | None = None) -> pa.Table:
        """The rows in the order of their keys, each once; those of some columns and the keys.

        Args:
            columns: default all but the imported ones, which are empty where nothing was given.

        Raises:
            AsyncDiffError: naming a file that is damaged.
        """
        names = self.schema.names if columns is None else [*Key._fields, *columns]
        names = list(dict.fromkeys(names))
        if self._held is not None:
            return self._held.select(names)
        own = [name for name in names if name in self.schema.names]
        table = self._read(pa.schema([self.schema.field(name) for name in own]))
        for name in names:
            if name not in own:
                table = with_column(table, name, read_column(self.path, name))
        return table.select(names)

    def _read(self, schema: pa.Schema) -> pa.Table:
        before: list[Path] | None = None
        while (parts := self.parts()) != before:
            try:
                tables = [table for part in parts for table in row_groups(part, schema)]
                return distinct_rows(pa.concat_tables([schema.empty_table(), *tables]))
            except PartGoneError:  # compacted: its rows are in a new part
                before = parts
        raise AsyncDiffError(f"a part of {self.path} is listed, and not there: a link to nothing?")

    def held(self) -> Store:
        """The store with its rows in memory, for who reads them often: as they are by now."""
        store = Store(self.path, self.settings)
        store._held = self.read([*self.schema.names, *self.imported])
        return store

    def image(self, name: str) -> Path:
        """The file of a row's `image`.

        Raises:
            InputError: for one that is not in the store's images/.
        """
        path = inside(self.path, name)
        if Path(name).parent != Path(IMAGES):
            raise InputError(f"{self.path} names the image {name!r}, which is not in {IMAGES}/")
        return path


@contextmanager
def reserved(path: Path, shard: tuple[int, int] = (0, 1)) -> Iterator[None]:
    """Hold the directory of a store, as `hold`; one that dead processes left without a row is new.

    Args:
        shard: (i, n) for every n-th prompt from the i-th on.
    """
    with hold(path, shard) as alone:
        if alone:
            _remove_without_rows(path)
        yield


def _remove_without_rows(path: Path) -> None:
    """Remove the images of rows that were never written, and last the settings."""
    with suppress(InputError, OSError):  # what is no store, or holds more, is left alone
        if not Store(path).parts():
            for image in (path / IMAGES).glob("[0-9]*.png"):
                image.unlink()
            for folder in (IMAGES, "parts"):
                with suppress(FileNotFoundError):
                    (path / folder).rmdir()
            (path / SETTINGS).unlink()
