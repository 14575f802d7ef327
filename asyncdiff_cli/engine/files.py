"""Files that appear complete or not at all, and names of files that were read from data."""

from __future__ import annotations

import errno
import glob
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath

from filelock import lock_descriptor

from asyncdiff_cli.engine.errors import InputError, of_system

REFUSED = "refused"
"""The folder beside an evaluation or a training for images whose scores are no numbers."""
REFERENCE = "reference.safetensors"
"""The statistics of pictures that others are compared with, in an evaluation or beside a judge."""
IMPORTED = "imported"
"""The folder of an evaluation for scores that other programs have given its images."""
FOLDERS = ("", "parts", "images", "checkpoints", "samples", "tpm", REFUSED, IMPORTED)
"""Where commands write below the directory that they are given."""
TEMPORARY = re.compile(r"\..*-[a-z0-9_]{8}\.part")
STEM = 50
"""Characters of a file's name in that of its temporary one, which could be too long with all."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a temporary file beside `path`, which then takes its place.

    Raises:
        AsyncDiffError: if it cannot be written.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as own:
            write(own)
            with own.open("rb") as file:
                os.fsync(file.fileno())  # a rename may reach the disk before the bytes do
            share(own)
            os.replace(own, path)


def check_writable(path: Path) -> None:
    """A file could be written, which is asked before there is something to write.

    Its directory need not be there yet. What a dead process left of it is removed.

    Raises:
        AsyncDiffError: if not.
    """
    with _named(path), temporary(nearest(path.parent) / path.name):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with suppress(FileNotFoundError):
            path.stat()  # a name may be too long, and its temporary one not
        _remove_dead(path.parent, _prefix(path))


def check_directory(path: Path) -> None:
    """Files could be written to a directory, which need not be there yet.

    Raises:
        InputError: for a file.
        AsyncDiffError: if not.
    """
    try:
        with suppress(FileNotFoundError):
            path.stat()  # a name may be too long
        place = nearest(path)
        if not place.is_dir():
            raise InputError(f"{place} is a file: give --out a directory")
        with temporary(place / "out"):
            pass
    except OSError as error:
        raise of_system(f"cannot write to {path}", error) from None


def nearest(directory: Path) -> Path:
    """The directory, or the first of those around it that is there."""
    return next(place for place in (directory, *directory.parents) if os.path.lexists(place))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file that the block writes, if that fails."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"cannot write {path}: {path.parent} is not a directory") from None
    except OSError as error:
        raise of_system(f"cannot write {path}", error) from None


@contextmanager
def temporary(path: Path, directory: bool = False) -> Iterator[Path]:
    """A hidden file, or a directory, beside `path` that is gone after the block.

    It is locked within the block, which tells it from what a dead process has left.
    """
    while True:
        descriptor, own = _make(path, directory)
        try:
            lock(descriptor, wait=True)
            if not os.fstat(descriptor).st_nlink:
                continue  # it was taken for such a leftover before it was locked
            yield own
            return
        finally:
            _remove(own)
            os.close(descriptor)


def _make(path: Path, directory: bool) -> tuple[int, Path]:
    make = tempfile.mkdtemp if directory else tempfile.mkstemp
    made = make(dir=path.parent, prefix=_prefix(path), suffix=".part")
    if isinstance(made, str):
        return os.open(made, os.O_RDONLY), Path(made)
    return made[0], Path(made[1])


def _prefix(path: Path) -> str:
    return f".{path.stem[:STEM]}-"


def remove_leftovers(directory: Path) -> None:
    """Remove what dead processes were writing to a directory and its `FOLDERS`."""
    for folder in FOLDERS:
        _remove_dead(directory / folder)


def _remove_dead(directory: Path, prefix: str = ".") -> None:
    for path in directory.glob(f"{glob.escape(prefix)}*.part"):
        if TEMPORARY.fullmatch(path.name):
            with suppress(OSError):
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    kind = os.O_RDONLY if path.is_dir() else os.O_RDWR
    descriptor = os.open(path, kind | getattr(os, "O_NOFOLLOW", 0))
    try:
        if lock(descriptor, without=False):
            _remove(path)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def lock(descriptor: int, wait: bool = False, without: bool = True) -> bool:
    """Whether an open file is now locked by this process alone.

    Args:
        wait: for another process that has locked it.
        without: the answer of file systems that have no locks.
    """
    try:
        return lock_descriptor(descriptor, blocking=wait)
    except OSError:
        return without


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, complete or not at all.

    Raises:
        AsyncDiffError: as `write_atomically`.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def inside(directory: Path, name: str) -> Path:
    """The file of a directory whose name was read from data, which others may have written.

    Raises:
        InputError: for a name or a link that leads out of the directory, or to what is no file.
    """
    pure = PureWindowsPath(name)  # which knows the separators and roots of every system
    path = directory / name
    leads_out = not pure.parts or pure.anchor or ".." in pure.parts or "\0" in name
    if leads_out or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory)):
        raise InputError(f"{directory} names {name!r}, which is not in it: do not trust its files")
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is not a file")
    return path


def write_apart(path: Path, text: str) -> Path:
    """Write UTF-8 text as `write_text` does, in the place of nothing but the same text.

    Returns:
        Where: as `unused`.

    Raises:
        AsyncDiffError: as `write_atomically`.
    """
    path = unused(path, lambda place: not os.path.lexists(place) or holds(place, text))
    write_text(path, text)
    return path


def holds(path: Path, text: str) -> bool:
    """Whether a file is this text."""
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def expanded(path: Path | str) -> Path:
    """A path whose leading `~` is the home directory, and `~NAME` that of a user there is.

    Raises:
        InputError: if the home directory cannot be told.
    """
    found = os.path.expanduser(path)
    if found == "~" or found.startswith("~/"):
        raise InputError(f"the home directory is not known: set HOME, or write {path} in full")
    return Path(found)


def listed(directory: Path, pattern: str) -> list[Path]:
    """The files of a directory whose names are of a pattern; none if there is no directory.

    Raises:
        OSError: if it may not be read, where `Path.glob` finds none.
    """
    with suppress(FileNotFoundError):
        os.listdir(directory)
    return sorted(directory.glob(pattern))


def existing(path: Path | str, kind: str = "file or directory") -> Path:
    """A path as `expanded`, of what is there.

    Raises:
        InputError: for what is not, as of this kind.
    """
    found = expanded(path)
    if not found.exists():
        raise InputError(f"there is no {kind} {path}")
    return found


def unused(path: Path, is_free: Callable[[Path], bool]) -> Path:
    """The first free one of a file's own path and NAME-2, NAME-3 … beside it.

    A directory is left for the writer to stumble over: who names one means another path.
    """
    others = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    places = itertools.chain([path], others)
    return next(place for place in places if place.is_dir() or is_free(place))


def kept_apart(asked: Path, written: Path) -> str | None:
    """What to say where `unused` has found another path than the one that was asked for."""
    if asked == written:
        return None
    if not os.path.lexists(asked):  # but a file that is written beside it
        return f"a file beside {asked} holds something else, so it is kept: see {written}"
    return f"{asked} is there and holds something else, so it is kept: see {written}"


def share(path: Path) -> None:
    """Give a file that was made for its owner alone the permissions of any new file."""
    os.chmod(path, 0o666 & ~umask())


def umask() -> int:
    """The permissions that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
