"""Small files that anyone may have written: of a sane size, and of the shape that is expected."""

from __future__ import annotations

import os
import reprlib
import stat
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from typing_extensions import Self

from asyncdiff_cli.engine.checks import unknown
from asyncdiff_cli.engine.errors import InputError, of_system
from asyncdiff_cli.engine.files import write_text
from asyncdiff_cli.engine.text import CLASS, shortened

MEBIBYTE = 1 << 20
MAX_SETTINGS_BYTES = 16 * MEBIBYTE
"""What settings, recipes and configurations are far below."""
SHOWN = 120
"""Characters of a value that are shown in a message."""

_SAID = {"value_error", "missing", "json_invalid", "too_short", "too_long"}
"""Kinds of pydantic's errors whose message tells the value, or that have none."""

AS_TUPLE = BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
"""What JSON has as a list is a tuple, of which `Read` takes none."""
Model = TypeVar("Model", bound=BaseModel)


class Read(BaseModel):
    """The shape of a file: what is named here is held to its type, and all else is kept."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class Saved(Read):
    """A file that commands write and users pass on."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file.

        Raises:
            InputError: for a file that cannot be read, or one of another shape.
        """
        return read_json(Path(path), cls)

    def save(self, path: str | Path) -> None:
        """Write it as JSON, complete or not at all.

        Raises:
            AsyncDiffError: if it cannot be written.
        """
        write_text(Path(path), self.model_dump_json(indent=1, exclude_none=True) + "\n")


def check_readable(path: Path) -> None:
    """A file can be opened, where a library would only say that it cannot be read.

    Raises:
        InputError, AsyncDiffError: if not.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise of_system(f"cannot read {path}", error) from None


def read_bytes(path: Path, limit: int = MAX_SETTINGS_BYTES) -> bytes:
    """All of a regular file.

    Raises:
        InputError: for a file that cannot be read, is a pipe or device, or has more bytes.
    """
    try:
        # without waiting for the other end of a pipe
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"cannot read {path}: it is not a regular file")
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}") from None
    if len(content) > limit:
        raise InputError(f"cannot read {path}: it has more than {limit // MEBIBYTE} MiB")
    return content


def read_text(path: Path, limit: int = MAX_SETTINGS_BYTES) -> str:
    """The UTF-8 text of a regular file, without a byte order mark.

    Raises:
        InputError: as `read_bytes`, and for what is no such text.
    """
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from None


def read_json(path: Path, model: type[Model], limit: int = MAX_SETTINGS_BYTES) -> Model:
    """A file of JSON of a known shape.

    Raises:
        InputError: as `read_text`; and for another shape, naming the file, the place, what was
            expected and what is there.
    """
    return parse_json(read_text(path, limit), model, str(path))


def parse_json(text: str | bytes, model: type[Model], where: str) -> Model:
    """JSON of a known shape.

    Raises:
        InputError: for another shape, naming the place, what was expected and what is there.
    """
    try:
        return model.model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        raise InputError(f"{where} is damaged: {problem(error)}") from None


def problem(error: ValidationError | RecursionError) -> str:
    """The first thing that a model did not accept, in a line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(problems(error)[0])


class Problem(NamedTuple):
    """A value that a model did not accept."""

    place: str
    """The dotted path of its key; "" for a problem of the whole."""
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, self))


def problems(error: ValidationError, model: type[BaseModel] | None = None) -> list[Problem]:
    """All that a model did not accept.

    Args:
        model: what the values are of; its fields are named where there is none of a key.
    """
    return [_problem(item, model) for item in error.errors(include_url=False)]


def _problem(item: Any, model: type[BaseModel] | None) -> Problem:
    path = [str(part) for part in item["loc"] if part != "[key]"]
    if item["type"] == "extra_forbidden":
        *parents, key = path
        group = model.model_fields[parents[0]].annotation if model and parents else model
        known = getattr(group, "model_fields", ())
        return Problem(".".join(parents), unknown("key", key, known))
    message = CLASS.sub(r"\1", item["msg"].removeprefix("Value error, "))
    if item["type"] not in _SAID:
        message += f", not {shown(item['input'])}"
    return Problem(".".join(path), message)


def shown(value: Any) -> str:
    """A value in a message: all of a small one, and the beginning of any other."""
    limited = reprlib.Repr()
    limited.maxstring = limited.maxother = limited.maxlong = SHOWN
    return shortened(" ".join(limited.repr(value).split()), SHOWN)
