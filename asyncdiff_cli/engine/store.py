"""The results of an evaluation: one row per image, in Parquet files that are complete or not there.

settings.json    what all rows share; another evaluation is refused
parts/*.parquet  the rows, in files that pandas, polars and DuckDB read
images/*.png     the images, if they are kept

A row's key is (prompt_id, seed, policy, gamma, bound, num_inference_steps). A row that is there is
never drawn again, and one that two processes drew by mistake is read once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import inside, write_atomically, write_text

FORMAT = 1
SETTINGS = "settings.json"
IMAGES = "images"


class Key(NamedTuple):
    """What tells a row from all others of its evaluation."""

    prompt_id: int
    """The prompt's place in the evaluation's prompts."""
    seed: int
    """Of its initial noise."""
    policy: str
    """As `parse_policy` labels it: "learned", "fixed:0.5"."""
    gamma: float
    bound: float
    num_inference_steps: int


COLUMNS: dict[str, pa.DataType] = {
    "prompt_id": pa.int32(),
    "prompt": pa.string(),
    "category": pa.string(),
    "seed": pa.int64(),
    "policy": pa.string(),
    "gamma": pa.float64(),
    "bound": pa.float64(),
    "num_inference_steps": pa.int32(),
    "deviations": pa.list_(pa.float32()),
    "cond_sigmas": pa.list_(pa.float32()),
    "seconds": pa.float64(),
    "policy_settings": pa.string(),
    "image": pa.string(),
    "provenance": pa.string(),
}
"""Before the rewards' columns. `deviations` [K − 1] are before γ; `seconds` is the image's share
of its batch's drawing and decoding; `image` is relative to the store; `policy_settings` and
`provenance` are JSON."""


class Store:
    """Reads and writes a store.

    Args:
        path: its directory.

    Raises:
        InputError: if the directory holds none, or one of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.settings: dict[str, Any] = json.loads(
                (path / SETTINGS).read_text(encoding="utf-8")
            )
            version = self.settings["format"]
            self.rewards = tuple(self.settings["rewards"]) if version == FORMAT else ()
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"{path} holds no evaluation: `asyncdiff eval --out {path}` makes one"
            ) from None
        if version != FORMAT:
            raise InputError(
                f"{path} has format {version}, and this version reads {FORMAT}: evaluate again"
            )

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> Store:
        """The store at `path`: a new one where there is nothing, else one of equal settings.

        Args:
            settings: JSON values that all rows share, with `rewards` by name.

        Raises:
            InputError: if there is something else, naming what differs.
            AsyncDiffError: if it cannot be written.
        """
        wanted = json.loads(json.dumps({"format": FORMAT, **settings}))
        if cls.is_new(path):
            write_text(path / SETTINGS, json.dumps(wanted, indent=2, ensure_ascii=False) + "\n")
        store = cls(path)
        if changed := differing(store.settings, wanted):
            raise InputError(f"{path} was evaluated with another {changed}: give another --out")
        return store

    @staticmethod
    def is_new(path: Path) -> bool:
        """Whether a store at `path` is yet to be made.

        Raises:
            InputError: if there is something else.
        """
        if (path / SETTINGS).exists():
            return False
        # what is hidden is left of one that was killed before it began
        if path.exists() and (not path.is_dir() or any(path.glob("[!.]*"))):
            raise InputError(f"{path} is there already and no evaluation: give another --out")
        return True

    @property
    def schema(self) -> pa.Schema:
        """The columns above, and a score per reward."""
        return pa.schema({**COLUMNS, **dict.fromkeys(self.rewards, pa.float64())})

    def parts(self) -> list[Path]:
        """The files of rows, in a fixed order."""
        return sorted((self.path / "parts").glob("[!.]*.parquet"))

    def keys(self) -> set[Key]:
        """What is there already."""
        table = self.read(Key._fields)
        return {Key(*row.values()) for row in table.select(Key._fields).to_pylist()}

    def write(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Add rows as one file, named after their keys.

        Raises:
            AsyncDiffError: if it cannot be written.
        """
        return self.add(pa.Table.from_pylist([dict(row) for row in rows], schema=self.schema))

    def add(self, table: pa.Table) -> Path:
        """As `write`, for rows of the store's schema."""
        keys = [list(row.values()) for row in table.select(Key._fields).to_pylist()]
        digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]
        path = self.path / "parts" / f"{keys[0][0]:06d}-{digest}.parquet"
        options = {"compression": "zstd", "write_page_checksum": True}
        write_atomically(path, lambda file: pq.write_table(table, file, **options))
        return path

    def read(self, columns: Iterable[str] | None = None) -> pa.Table:
        """The rows in the order of their keys, each once; those of some columns and the keys.

        Raises:
            AsyncDiffError: naming a file that is damaged.
        """
        schema = self.schema
        if columns is not None:
            names = dict.fromkeys([*Key._fields, *columns])
            schema = pa.schema([schema.field(name) for name in names])
        tables = [schema.empty_table()]
        for path in self.parts():
            try:
                part = pq.read_table(path, columns=schema.names, page_checksum_verification=True)
                tables.append(part.cast(schema))
            except (OSError, pa.ArrowException, ValueError) as error:
                raise AsyncDiffError(
                    f"{path} is damaged ({' '.join(str(error).split())}): delete it, and evaluate"
                    " into the same --out to draw its images again"
                ) from None
        return _distinct(pa.concat_tables(tables))

    def image(self, name: str) -> Path:
        """The file of a row's `image`.

        Raises:
            InputError: for one that is not in the store's images/.
        """
        path = inside(self.path, name)
        if Path(name).parent != Path(IMAGES):
            raise InputError(f"{self.path} names the image {name!r}, which is not in {IMAGES}/")
        return path


def _distinct(table: pa.Table) -> pa.Table:
    """The first row of each key, sorted by key."""
    numbered = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    first = numbered.group_by(list(Key._fields)).aggregate([("row", "min")])["row_min"]
    return table.take(first).sort_by([(name, "ascending") for name in Key._fields])


def described(table: pa.Table) -> list[tuple[str, str]]:
    """The distinct policies of rows, each with its settings."""
    columns = ["policy", "policy_settings"]
    found = table.select(columns).group_by(columns).aggregate([]).to_pylist()
    return [(row["policy"], row["policy_settings"]) for row in found]


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What two stores' settings disagree in, with both values; "" for nothing."""
    return ", ".join(
        f"{name} ({before.get(name)}, now {after.get(name)})"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    )


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
    if out.exists():
        raise InputError(f"{out} is there already: give another directory")
    table = pa.concat_tables([store.read() for store in stores])
    labels = [label for label, _ in described(table)]
    if label := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(f"{label} is not the same policy in all of them")
    files = {
        name: _find(name, stores) for name in filter(None, table["image"].unique().to_pylist())
    }
    merged = Store.open(out, {k: v for k, v in stores[0].settings.items() if k != "format"})
    for name, file in files.items():
        write_atomically(merged.image(name), partial(shutil.copyfile, file))
    if len(table):
        merged.add(_distinct(table))
    return merged


def _find(name: str, stores: Sequence[Store]) -> Path:
    found = next((file for store in stores if (file := store.image(name)).is_file()), None)
    if found is None:
        raise AsyncDiffError(f"the image {name} is in none of the stores")
    return found
