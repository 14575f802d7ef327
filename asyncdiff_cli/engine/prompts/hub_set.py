"""Prompts of a data set on the Hugging Face Hub: one column of text, at one commit.

They are streamed once by the library `datasets`, and kept where other prompts are downloaded to. A
directory in a form that the library reads is a data set too, and is read anew each time.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict
from typing_extensions import Self

from asyncdiff_cli.engine.checks import check_choice, may_be_repository
from asyncdiff_cli.engine.downloads import data_home
from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning, InputError
from asyncdiff_cli.engine.fields import Count, validated
from asyncdiff_cli.engine.files import expanded, write_text
from asyncdiff_cli.engine.hub import hub_errors, is_reachable
from asyncdiff_cli.engine.reading import MEBIBYTE, read_json
from asyncdiff_cli.engine.repository import COMMIT
from asyncdiff_cli.engine.text import one_line

PREFIX = "hf:"
FORM = "hf:USER/NAME[@REVISION][:COLUMN][,split=NAME][,config=NAME][,rows=N]"
OPTIONS = ("split", "config", "rows")
USUAL_COLUMN = "prompt"
"""What is read where no column is named and several hold text."""
MAX_TEXT = 256 * MEBIBYTE
"""What the texts of a set are below."""
_FORM = re.compile(
    r"hf:(?P<repo>[^@:,]+)(@(?P<revision>[^:,]+))?(:(?P<column>[^,]+))?(?P<options>(,[^,]*)*)"
)


class _Kept(BaseModel):
    """The file of a set that was read."""

    source: str
    texts: list[str]


class HubSet(BaseModel):
    """A data set as it is asked for; None is what there is only one of."""

    model_config = ConfigDict(frozen=True)

    repo: str
    """A repository, or a directory that begins with `.`, `/` or `~`."""
    revision: str | None = None
    """Branch, tag or commit of a repository; None for its default branch."""
    column: str | None = None
    split: str | None = None
    config: str | None = None
    rows: Count | None = None
    """How many rows are read, the first ones; None for all."""

    @classmethod
    def parse(cls, source: str | Path) -> Self:
        """Read a source as it is typed.

        Raises:
            InputError: for what is not of `FORM`.
        """
        found = _FORM.fullmatch(str(source))
        if found is None:
            raise InputError(f"{source} is no data set: write {FORM}")
        given: dict[str, Any] = found.groupdict()
        for part in given.pop("options").split(",")[1:]:
            name, _, value = part.partition("=")
            check_choice(f"option of {source}:", name, OPTIONS)
            if not value or name in given:
                raise InputError(f"{source}: give {name}= once, with its value")
            given[name] = value
        return validated(cls, given, str(source))

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repo}{revision}{self._what}"

    @property
    def _what(self) -> str:
        """What of the set is read, as it is typed."""
        options = (f",{name}={value}" for name in OPTIONS if (value := getattr(self, name)))
        return (f":{self.column}" if self.column else "") + "".join(options)

    @property
    def directory(self) -> Path | None:
        """The directory; None for a repository."""
        return expanded(self.repo).absolute() if self.repo.startswith((".", "/", "~")) else None

    @property
    def is_pinned(self) -> bool:
        """Whether it cannot become another one, as far as it is the hub's."""
        return bool(COMMIT.fullmatch(self.revision or ""))

    def check(self) -> None:
        """Check all that names and this disk tell.

        Raises:
            InputError: for what is no repository's name, a directory that is not there, or one with
                a revision; and where `datasets` is not installed.
        """
        if self.directory is not None:
            if not self.directory.is_dir():
                raise InputError(f"there is no directory {self.repo}")
            if self.revision is not None:
                raise InputError(f"a revision belongs to a repository, and {self.repo} is none")
        elif not may_be_repository(self.repo):
            raise InputError(f"{self.repo} is no data set of the hub: write {FORM}")
        elif Path(self.repo).is_dir():  # `datasets` would read it
            raise InputError(
                f"{self.repo} is a directory here: write hf:./{self.repo} for it, or go to another"
                " one for the hub's"
            )
        if find_spec("datasets") is None:
            raise InputError(f"{self} needs datasets: pip install 'asyncdiff-cli[datasets]'")

    def pinned(self) -> Self:
        """Name the commit that the hub has, or the directory from anywhere.

        Raises:
            InputError: as `check`, and for a repository or revision that is not there.
            AsyncDiffError: if the hub does not answer.
        """
        self.check()
        if self.directory is not None:
            return self.model_copy(update={"repo": str(self.directory)})
        return self if self.is_pinned else self.model_copy(update={"revision": _commit(self)})

    def texts(self, data_dir: Path | None = None) -> list[str]:
        """The rows of a set that is pinned, in their order; "" for one that is empty.

        Args:
            data_dir: where it is kept, as of `data_home`.

        Raises:
            InputError: for a split, config or column that is not there or left open, and for one
                that is not text.
            AsyncDiffError: if it cannot be read.
        """
        if self.directory is not None:
            return self._read()
        folder = data_home(data_dir) / "hf" / quote(self.repo, "") / str(self.revision)
        file = folder / f"{quote(self._what, ' =') or 'all'}.json"
        if not file.is_file():
            kept = _Kept(source=str(self), texts=self._read())
            write_text(file, kept.model_dump_json())
            return kept.texts
        return read_json(file, _Kept, 2 * MAX_TEXT).texts

    def _read(self) -> list[str]:
        with _reading(self):
            texts = list(_within_limit(self._stream()))
        if empty := [n for n, text in enumerate(texts) if not text]:
            warnings.warn(
                f"{self}: {len(empty)} of {len(texts)} rows are empty and left out, the first of"
                f" them row {empty[0]}",
                AsyncDiffWarning,
                stacklevel=2,
            )
        return texts

    def _stream(self) -> Iterator[str]:
        """The texts of the column, without what is white around them."""
        import datasets

        place, revision = str(self.directory or self.repo), {"revision": self.revision}
        configs = datasets.get_dataset_config_names(place, **revision)
        usual = datasets.get_dataset_default_config_name(place, **revision)
        config = self._one_of("config", configs, usual)
        builder = datasets.load_dataset_builder(place, config, **revision)
        splits = builder.as_streaming_dataset()
        split = self._one_of("split", splits)
        column = self._column(_is_text(splits[split]))
        if hasattr(builder.config, "columns"):  # of Parquet no other column is downloaded
            builder = datasets.load_dataset_builder(place, config, columns=[column], **revision)
        rows = builder.as_streaming_dataset(split).select_columns([column])
        for n, row in enumerate(islice(rows, self.rows)):
            text = row[column]
            if not isinstance(text, str | None):
                raise InputError(
                    f"{self}: row {n} of the column {column} is no text, but of type"
                    f" {type(text).__name__}: name another column"
                )
            yield (text or "").strip()

    def _one_of(self, kind: str, known: Iterable[str], usual: str | None = None) -> str:
        """The config or split that is asked for, or the usual or only one."""
        names, asked = list(known), getattr(self, kind)
        if asked is not None:
            check_choice(f"{kind} of {self}:", asked, names)
        chosen = asked or usual or (names[0] if len(names) == 1 else None)
        if chosen is None:
            raise InputError(
                f"{self} has the {kind}s {', '.join(names)}: choose one by ,{kind}=NAME at the end"
            )
        return chosen

    def _column(self, is_text: Mapping[str, bool]) -> str:
        """The column that is asked for, or else `USUAL_COLUMN` or the only one of text."""
        texts = [name for name in is_text if is_text[name]]
        if self.column is not None:
            check_choice(f"column of {self}:", self.column, is_text)
        elif USUAL_COLUMN in texts or len(texts) == 1:
            return USUAL_COLUMN if USUAL_COLUMN in texts else texts[0]
        if self.column in texts:
            return self.column
        there = f"of text there are {', '.join(texts)}" if texts else "no column holds text"
        what = f"the column {self.column} holds no text" if self.column else "name a column"
        raise InputError(f"{self}: {what}; {there}")


def is_hub_set(source: str | Path) -> bool:
    """Whether a source of prompts is a data set for `HubSet`, and no file."""
    return str(source).startswith(PREFIX)


def pinned_source(source: str, like: str | None = None) -> str:
    """A source of prompts that stays the same: of a data set its commit is named.

    Args:
        like: a source that was pinned before. If it is the same set, its commit is taken.

    Raises:
        InputError, AsyncDiffError: as `HubSet.pinned`.
    """
    if not is_hub_set(source):
        return source
    asked = HubSet.parse(source)
    if like is not None and is_hub_set(like):
        before = HubSet.parse(like)
        if before.model_copy(update={"revision": None}) == asked:
            return like
    return str(asked.pinned())


def read_hub_set(source: str | Path, data_dir: Path | None = None) -> list[tuple[str, str]]:
    """Read the prompts of a data set.

    Args:
        data_dir: as of `HubSet.texts`.

    Returns:
        The rows that are not empty, and where each is for messages.

    Raises:
        InputError, AsyncDiffError: as `HubSet.pinned` and `HubSet.texts`, and for a set without a
            text.
    """
    chosen = HubSet.parse(source).pinned()
    rows = [(f"{chosen} row {n}", text) for n, text in enumerate(chosen.texts(data_dir)) if text]
    if not rows:
        raise InputError(f"{chosen} holds no prompt")
    return rows


@lru_cache
def _looked_up(repo: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(repo, revision=revision).sha)


def _commit(asked: HubSet) -> str:
    """The commit of a repository's branch or tag; it is looked up once."""
    with _reading(asked):
        return _looked_up(asked.repo, asked.revision)


@contextmanager
def _reading(asked: HubSet) -> Iterator[None]:
    """Turn what the hub and `datasets` raise within the block into the project's errors."""
    if asked.directory is None and not is_reachable():
        raise AsyncDiffError(
            f"{asked} is not downloaded and the hub cannot be reached: connect, name a commit that"
            " is downloaded (hf:USER/NAME@COMMIT), or give a file of prompts"
        )
    place = str(asked.directory or f"datasets/{asked.repo}")
    try:
        with hub_errors(place, "a file of prompts", "mini's own need no download", "is not there"):
            yield
    except AsyncDiffError:
        raise
    except Exception as error:  # the library, and what it reads with, raise errors of any class
        raise AsyncDiffError(f"{asked} cannot be read: {one_line(error)}") from None


def _is_text(rows: Any) -> dict[str, bool]:
    """Whether each column holds text."""
    if rows.features is None:  # of CSV and JSON only a row tells
        return {name: isinstance(value, str | None) for name, value in next(iter(rows), {}).items()}
    text = ("string", "large_string")
    return {name: getattr(kind, "dtype", "") in text for name, kind in rows.features.items()}


def _within_limit(texts: Iterable[str]) -> Iterator[str]:
    size = 0
    for text in texts:
        size += len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_TEXT:
            raise InputError(
                f"a data set may hold {MAX_TEXT // MEBIBYTE} MiB of text: read the first N rows by"
                " ,rows=N at the end"
            )
        yield text
