"""Files that come from a browser: a schedule, a spectrum, or the two files of a module."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import Base64Bytes, BaseModel, ValidationError

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import unused, write_atomically
from asyncdiff_cli.engine.policies.table import SCHEDULE_FILE

LARGEST = 64 << 20
"""Bytes of all files that come at once; a module has a tenth of them."""
MODULE_FILES = {"config.json", "model.safetensors"}
WANTED = (
    "upload one schedule or spectrum, FILE.json, or a module, config.json and model.safetensors"
)

Files = Mapping[str, bytes]
"""Contents by name, without a directory."""


class _Sent(BaseModel):
    name: str
    size: int
    data: Base64Bytes = b""


class _Upload(BaseModel):
    """What `upload.js` makes of the files that were chosen."""

    files: tuple[_Sent, ...] = ()


def received(value: Mapping[str, Any]) -> Files:
    """The files that the page's part holds.

    Raises:
        InputError: for files that are too large, of other kinds, or not whole.
    """
    try:
        files = _Upload.model_validate(value).files
    except ValidationError:
        raise InputError(f"what was uploaded is damaged: {WANTED}") from None
    total = max(sum(file.size for file in files), sum(len(file.data) for file in files))
    if total > LARGEST:
        raise InputError(
            f"these files have {total >> 20} MiB, and at most {LARGEST >> 20} are uploaded: copy"
            " them to this machine, and load them by their path"
        )
    names = [file.name for file in files]
    is_one = len(names) == 1 and names[0].endswith(SCHEDULE_FILE)
    if not is_one and sorted(names) != sorted(MODULE_FILES):
        raise InputError(WANTED)
    if any(len(file.data) != file.size for file in files):
        raise InputError(f"what was uploaded is not whole: {WANTED}")
    return {file.name: file.data for file in files}


@contextmanager
def kept(files: Files, out: Path) -> Iterator[Path]:
    """Write files that were received into a directory, where they stay if the block succeeds.

    Yields:
        The schedule or spectrum, or the directory of the module, which its contents name.

    Raises:
        InputError: for a name that is a path.
        AsyncDiffError: if they cannot be written.
    """
    places = _places(files, out)
    new = {place: data for place, data in places.items() if not place.exists()}
    first = next(iter(places))
    home = first if len(places) == 1 else first.parent
    try:
        for place, data in new.items():
            write_atomically(place, partial(Path.write_bytes, data=data))
        yield home
    except BaseException:
        for place in new:
            place.unlink(missing_ok=True)
        if home.is_dir() and new:
            with suppress(OSError):  # it is not empty
                home.rmdir()
        raise


def _places(files: Files, out: Path) -> dict[Path, bytes]:
    """Where each file goes: beside another of its name that holds something else."""
    if files.keys() == MODULE_FILES:
        digest = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()
        return {out / f"module-{digest[:12]}" / name: data for name, data in files.items()}
    ((name, data),) = files.items()
    if PureWindowsPath(name).name != name or name.startswith("."):  # it knows all separators
        raise InputError(f"{name!r} is not a file's name")
    path = unused(out / name, lambda place: not place.exists() or place.read_bytes() == data)
    return {path: data}
