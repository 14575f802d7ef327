"""The results of an evaluation: one row per image, in Parquet files that are complete or not there.

settings.json    what all rows share, written with the first; another evaluation is refused
parts/*.parquet  the rows, in files that pandas, polars and DuckDB read
images/*.png     the images, if they are kept
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
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import AfterValidator, Field

from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import (
    REFERENCE,
    REFUSED,
    inside,
    listed,
    write_atomically,
    write_text,
)
from asyncdiff_cli.engine.locks import hold, turn
from asyncdiff_cli.engine.reading import MEBIBYTE, Read, parse_json, read_text
from asyncdiff_cli.engine.text import one_line

FORMAT = 1
SETTINGS = "settings.json"
IMAGES = "images"
FAN_IN = 64
"""Parts of one process that are put into one, as are so many of these again."""
ROW_GROUP = 4096
"""Rows of a compacted part that are in memory at once."""
HASHED = {"backbone": "fingerprint", "lora": "fingerprint", "dataset": "prompts_sha256"}
"""Settings that name files, and those that hash what is in them."""
LARGEST_IMAGE = 1024 * MEBIBYTE
"""Bytes of a picture that `merge` copies."""
OPTIONS = {"compression": "zstd", "write_page_checksum": True}


class Key(NamedTuple):
    """What tells a row from all others of its evaluation."""

    prompt_id: int
    """The prompt's place in the evaluation's prompts."""
    seed: int
    """The seed of its initial noise."""
    policy: str
    """The policy as `parse_policy` labels it: "learned", "fixed:0.5"."""
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
"""Columns before the rewards'. `deviations` [K − 1] are before γ; `seconds` is the image's share
of its batch's drawing and decoding; `image` is relative to the store; `policy_settings` and
`provenance` are JSON."""
MAY_LACK = ("category", "image")


class Versioned(Read):
    """What every version of settings.json has."""

    format: int


def features_of(set_metric: str) -> str:
    """The column of a set metric's features [F] of each image."""
    return f"{set_metric}_features"


def _column(name: str) -> str:
    if name in COLUMNS:
        raise ValueError(f"no reward is called {name}")
    return name


Scalar = str | float | bool | None
Value = Scalar | list[Scalar]


class Compared(Read):
    """What a set metric compares pictures with, and by which weights."""

    weights: str | None
    reference: str
    """The fingerprint of its pictures."""
    reference_images: int


class StoreSettings(Versioned):
    """A settings.json: what all rows share."""

    __pydantic_extra__: dict[str, Value]

    backbone: str
    rewards: dict[Annotated[str, AfterValidator(_column)], dict[str, Scalar]]
    set_metrics: dict[str, Compared] = Field({})


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
        self.settings = _read_settings(path) if settings is None else settings
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
        wanted = json.loads(json.dumps({"format": FORMAT, **settings}))
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
    ) -> None:
        """Check, as `open`, what is known before models are loaded: names, and the reference's.

        Raises:
            InputError: as `open`.
        """
        if cls.is_new(path):
            return
        store = cls(path)
        named = store.settings.get("set_metrics", {})
        own = {
            **{name: value for name, value in store.settings.items() if name != "set_metrics"},
            "rewards": sorted(store.rewards),
            "set metrics": sorted(named),
            "reference": next((each["reference"] for each in named.values()), None),
        }
        wanted = {
            **{"format": FORMAT, **settings, "rewards": sorted(rewards)},
            **{"set metrics": sorted(set_metrics), "reference": reference},
        }
        store._differ(own, wanted)

    def _check(self, wanted: Mapping[str, Any]) -> None:
        self._differ(self.settings, wanted)

    def _differ(self, own: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        if changed := differing(own, wanted):
            raise InputError(
                f"{self.path} was evaluated with another {changed}: give another --out"
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
        """The columns above, a score per reward, and features per set metric."""
        features = dict.fromkeys(map(features_of, self.set_metrics), pa.list_(pa.float32()))
        return pa.schema({**COLUMNS, **dict.fromkeys(self.rewards, pa.float64()), **features})

    def parts(self) -> list[Path]:
        """The files of rows, in a fixed order."""
        return listed(self.path / "parts", "[!.]*.parquet")

    def keys(self) -> set[Key]:
        """What is there already."""
        return set(_keys(self.read(Key._fields)))

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
        write_atomically(path, lambda file: pq.write_table(table, file, **OPTIONS))
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
            write_atomically(whole, lambda file: self._copy(parts, file))
        except _GoneError:
            return None
        for part in parts:
            part.unlink(missing_ok=True)
        return whole

    def _copy(self, parts: Sequence[Path], file: Path) -> None:
        """Write the distinct rows of parts, some at a time."""
        seen: set[Key] = set()
        waiting: list[pa.Table] = []
        with pq.ParquetWriter(file, self.schema, **OPTIONS) as writer:
            for table in (table for part in parts for table in _row_groups(part, self.schema)):
                waiting.append(_unseen(table, seen))
                if sum(map(len, waiting)) >= ROW_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))

    def read(self, columns: Iterable[str] | None = None) -> pa.Table:
        """The rows in the order of their keys, each once; those of some columns and the keys.

        Raises:
            AsyncDiffError: naming a file that is damaged.
        """
        schema = self.schema
        if columns is not None:
            names = dict.fromkeys([*Key._fields, *columns])
            schema = pa.schema([schema.field(name) for name in names])
        if self._held is not None:
            return self._held.select(schema.names)
        before: list[Path] | None = None
        while (parts := self.parts()) != before:
            try:
                found = [table for part in parts for table in _row_groups(part, schema)]
                return _distinct(pa.concat_tables([schema.empty_table(), *found]))
            except _GoneError:  # compacted: its rows are in a new part
                before = parts
        raise AsyncDiffError(f"a part of {self.path} is listed, and not there: a link to nothing?")

    def held(self) -> Store:
        """The store with its rows in memory, for who reads them often: as they are by now."""
        store = Store(self.path, self.settings)
        store._held = self.read()
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


def _read_settings(path: Path) -> dict[str, Any]:
    """The settings of the store in a directory. Raises: as `Store`."""
    file = path / SETTINGS
    try:
        text = read_text(file)
    except InputError as error:
        if file.exists():
            raise  # for what cannot be read, another evaluation is no help
        raise InputError(_no_evaluation(path, error)) from None
    try:
        version = parse_json(text, Versioned, SETTINGS).format
        if version == FORMAT:
            parse_json(text, StoreSettings, SETTINGS)
    except InputError as error:
        raise InputError(_no_evaluation(path, error)) from None
    if version != FORMAT:
        raise InputError(
            f"{path} has format {version}, and this version reads {FORMAT}: evaluate again"
        )
    return json.loads(text)


def _no_evaluation(path: Path, reason: InputError) -> str:
    return f"{path} holds no evaluation: `asyncdiff eval --out {path}` makes one ({reason})"


class _GoneError(Exception):
    """A part that was listed is not there any more."""


def _row_groups(part: Path, schema: pa.Schema) -> Iterator[pa.Table]:
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
            if problem := _problem(group):
                raise ValueError(problem)
            yield group
    except PermissionError as error:
        raise AsyncDiffError(f"cannot read {part}: {error.strerror or error}") from None
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        if not part.exists():
            raise _GoneError from None
        raise AsyncDiffError(
            f"{part} is damaged ({one_line(error)}): delete it, and evaluate into the same --out"
            " to draw its images again"
        ) from None


def _problem(rows: pa.Table) -> str:
    """What rows have that no evaluation writes; "" for nothing."""
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        numbers = pc.list_flatten(column) if pa.types.is_list(column.type) else column
        lacking = column.null_count if name not in MAY_LACK else 0
        if lacking or numbers.null_count > column.null_count:
            return f"{name} has empty places"
        measured = pa.types.is_floating(numbers.type) and name != "bound"
        if measured and not pc.all(pc.is_finite(numbers), min_count=0).as_py():
            return f"{name} has a value that is no number"
    return ""


def _keys(table: pa.Table) -> list[Key]:
    columns = (table[name].to_pylist() for name in Key._fields)
    return list(map(Key._make, zip(*columns, strict=True)))


def _unseen(table: pa.Table, seen: set[Key]) -> pa.Table:
    """The rows whose keys are not among those that were seen, and now are."""
    fresh = []
    for key in _keys(table):
        fresh.append(key not in seen)
        seen.add(key)
    return table.filter(pa.array(fresh, pa.bool_()))


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


def _distinct(table: pa.Table) -> pa.Table:
    """The first row of each key, sorted by key."""
    keys = table.select(Key._fields).combine_chunks()
    numbered = keys.append_column("row", pa.array(range(len(table)), pa.int64()))
    first = numbered.group_by(list(Key._fields)).aggregate([("row", "min")])
    order = pc.sort_indices(first, [(name, "ascending") for name in Key._fields])
    return table.combine_chunks().take(first["row_min"].take(order))


def described(table: pa.Table) -> list[tuple[str, str]]:
    """The distinct policies of rows, each with its settings."""
    columns = ["policy", "policy_settings"]
    found = table.select(columns).group_by(columns).aggregate([]).to_pylist()
    return [(row["policy"], row["policy_settings"]) for row in found]


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What two stores' settings disagree in, with both values; "" for nothing.

    Files of the same bytes are the same from wherever they are named.
    """
    return ", ".join(
        f"{name} ({before.get(name)}, now {after.get(name)})"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name) and not _elsewhere(name, before, after)
    )


def _elsewhere(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a setting names another place of what is the same by its hash."""
    hashed = HASHED.get(name)
    if hashed is None or before.get(hashed) is None or before.get(hashed) != after.get(hashed):
        return False
    return name != "lora" or _scales(before) == _scales(after)


def _scales(settings: Mapping[str, Any]) -> list[float]:
    texts = settings.get("lora")
    return [LoRA.parse(str(text)).scale for text in texts] if isinstance(texts, list) else []


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
    merged = Store(out, stores[0].settings)
    merged.begin()
    for name, file in files.items():
        write_atomically(merged.image(name), partial(shutil.copyfile, file))
    if merged.set_metrics:
        write_atomically(out / REFERENCE, partial(shutil.copyfile, references[0]))
    if len(table):
        merged.add(_distinct(table))
    return merged


def _find(name: str, stores: Sequence[Store]) -> Path:
    found = next((file for store in stores if (file := store.image(name)).is_file()), None)
    if found is None:
        raise AsyncDiffError(f"the image {name} is in none of the stores")
    if found.stat().st_size > LARGEST_IMAGE:
        raise AsyncDiffError(f"{found} has more than {LARGEST_IMAGE // MEBIBYTE} MiB: no image has")
    found.open("rb").close()  # what cannot be read is not said of its copy
    return found
