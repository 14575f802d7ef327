"""Files of prompts, read by one set of rules for every command.

A file is text with a prompt a line, or JSON Lines with an object a line; it is JSON Lines if its
name says so or its first entry begins with a brace. A file that is one JSON array is refused, as is
a line of text that is JSON. It is UTF-8, or UTF-16 with a byte order mark. Lines end with LF, CR LF
or CR, and with nothing else. Blank lines and lines that begin with `#` are skipped, and what is
white around a line is no part of it.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import existing
from asyncdiff_cli.engine.prompts.hub_set import HubSet, is_hub_set, read_hub_set
from asyncdiff_cli.engine.reading import MEBIBYTE, read_bytes

STDIN = Path("-")
LIMIT = 256 * MEBIBYTE
"""What a file of prompts is below."""
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
AN_OBJECT = 'an object such as {"prompt": "a cat"}'
LINE_END = re.compile(r"\r\n|\r|\n")


class Entry(NamedTuple):
    """A line or row that is not skipped."""

    where: str
    """File and line, or data set and row, for messages."""
    values: Mapping[str, Any]
    """A JSON object, or what a text stands for: `{"prompt": text}`."""


def existing_prompts(path: Path, kind: str = "file or directory") -> Path:
    """Refuse a file of prompts that is not there, or a data set that cannot be.

    Raises:
        InputError: as `existing` and `HubSet.check`.
    """
    if is_hub_set(path):
        HubSet.parse(path).check()
        return path
    return existing(path, kind)


def read_entries(path: Path, data_dir: Path | None = None) -> list[Entry]:
    """The entries of a file, of stdin for `-`, or of a data set for `hf:…`.

    Args:
        data_dir: where a data set is kept, as of `read_hub_set`.

    Raises:
        InputError: for a file that cannot be read, is no text or holds no entry; and for a line of
            JSON Lines that is no object or names a key twice, or of text that is JSON, naming file
            and line; and as `read_hub_set`.
        AsyncDiffError: as `read_hub_set`.
    """
    if is_hub_set(path):
        return [Entry(where, {"prompt": text}) for where, text in read_hub_set(path, data_dir)]
    name = "stdin" if path == STDIN else str(path)
    lines = [(f"{name}:{number}", line) for number, line in _lines(_decoded(_bytes(path), name))]
    if not lines:
        raise InputError(f"{name} holds no prompt")
    if lines[0][1].startswith("[") and _is_structure("\n".join(line for _, line in lines)):
        raise InputError(f"{name} is a JSON array: give a prompt a line, or {AN_OBJECT} a line")
    is_json = path.suffix.lower() in JSON_SUFFIXES or lines[0][1].startswith("{")
    return [Entry(where, (_object if is_json else _text)(where, line)) for where, line in lines]


def _bytes(path: Path) -> bytes:
    if path == STDIN:
        if sys.stdin is None:
            raise InputError("stdin is closed")
        return _piped(sys.stdin.buffer, "stdin")
    if path.is_relative_to("/dev") and path.is_fifo():  # a shell's <(…), which is open already
        with path.open("rb") as file:
            return _piped(file, str(path))
    return read_bytes(path, LIMIT)


def _piped(file: BinaryIO, name: str) -> bytes:
    raw = file.read(LIMIT + 1)
    if len(raw) > LIMIT:
        raise InputError(f"cannot read {name}: it has more than {LIMIT // MEBIBYTE} MiB")
    return raw


def _decoded(raw: bytes, name: str) -> str:
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if wide else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        what = "UTF-16" if wide else "UTF-8"
        raise InputError(f"{name} is not {what} text (byte {error.start})") from None
    if "\0" in text:  # as in UTF-16 without a mark
        raise InputError(f"{name} is not text: it holds NUL characters")
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(LINE_END.split(text), start=1):
        # files that were put together have marks inside
        if (stripped := line.lstrip("\ufeff").strip()) and not stripped.startswith("#"):
            yield number, stripped


def _text(where: str, line: str) -> dict[str, Any]:
    if _is_structure(line):
        raise InputError(f"{where}: this line is JSON, and the first one is text")
    return {"prompt": line}


def _is_structure(text: str) -> bool:
    """Whether a text is an object or array of JSON."""
    if not text.startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _object(where: str, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        raise InputError(f"{where}: not JSON of a sane depth") from None
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{where}: a line is {AN_OBJECT}")
    return values


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{max(keys, key=keys.count)!r} is there twice")
    return values
