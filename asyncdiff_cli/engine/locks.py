"""Directories and files that one command writes at a time; a lock ends with its process."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError, of_system
from asyncdiff_cli.engine.files import lock, remove_leftovers
from asyncdiff_cli.engine.messages import is_leader

LOCK, TURN = ".lock", ".lock-turn"
SHARD = re.compile(r"\.lock-(\d+)-(\d+)")


@contextmanager
def hold(directory: Path, shard: tuple[int, int] | None = None) -> Iterator[bool]:
    """Make a directory, keep other commands from it within the block, and remove their leftovers.

    Of the processes of one run only the first holds it. Shards (i, n) of one evaluation hold it
    side by side if they have no prompt in common.

    Yields:
        Whether no other process writes to the directory.

    Raises:
        InputError: naming who holds it, or for a file.
        AsyncDiffError: if nothing can be written there.
    """
    if not is_leader():
        yield False
        return
    path = directory / (LOCK if shard is None else f"{LOCK}-{shard[0]}-{shard[1]}")
    with _made(directory), _locked(path) as mine:
        if not mine:
            raise _held(directory, path)
        others = [] if shard is None else _other_shards(path)
        for index, count in others:
            if shard is not None and (index - shard[0]) % math.gcd(count, shard[1]) == 0:
                raise _held(directory, directory / f"{LOCK}-{index}-{count}")
        remove_leftovers(directory)
        if not others:
            (directory / TURN).unlink(missing_ok=True)
        yield not others


@contextmanager
def hold_file(path: Path) -> Iterator[None]:
    """Keep other commands from a file within the block; its directory is made.

    Raises:
        InputError: naming who holds it.
        AsyncDiffError: if nothing can be written there.
    """
    own = path.with_name(f".{path.name}{LOCK}")
    with _made(path.parent), _locked(own) as mine:
        if not mine:
            raise _held(path, own)
        yield


@contextmanager
def turn(directory: Path) -> Iterator[None]:
    """Wait for a short turn among the processes that hold a directory side by side."""
    with _locked(directory / TURN, wait=True):
        yield


def held_shards(directory: Path) -> list[tuple[int, int]]:
    """The shards (i, n) that processes are at work on."""
    return [
        (int(found[1]), int(found[2]))
        for path in sorted(directory.glob(f"{LOCK}-*"))
        if (found := SHARD.fullmatch(path.name)) and _is_held(path)
    ]


def _other_shards(own: Path) -> list[tuple[int, int]]:
    mine = SHARD.fullmatch(own.name)
    assert mine is not None  # it is a shard's
    return [s for s in held_shards(own.parent) if s != (int(mine[1]), int(mine[2]))]


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Make a directory, and remove it again if nothing was written to it."""
    try:
        new = [path for path in (directory, *directory.parents) if not path.exists()]
        if not new and not directory.is_dir():
            raise InputError(f"{directory} is a file: give --out a directory")
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise of_system(f"cannot write to {directory}", error) from None
    try:
        yield
    finally:
        with suppress(OSError):
            for path in new:
                path.rmdir()


@contextmanager
def _locked(path: Path, wait: bool = False) -> Iterator[bool]:
    """Lock a file within the block, which is gone after it; yields whether that was possible."""
    descriptor = _open(path, wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)  # whoever opened it before sees that it is gone
            os.close(descriptor)


def _open(path: Path, wait: bool) -> int | None:
    """The descriptor of a file that this process alone has locked; None if another one has.

    One that its holder has just removed is made again.

    Raises:
        AsyncDiffError: if it cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        while True:
            descriptor = os.open(path, flags, 0o666)
            locked = lock(descriptor, wait)
            if locked and os.fstat(descriptor).st_nlink:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_self()).encode())
                return descriptor
            os.close(descriptor)
            if not locked:
                return None
    except OSError as error:
        raise of_system(f"cannot write to {path.parent}", error) from None


def _is_held(path: Path) -> bool:
    """Whether a process has locked a file; the file of a dead one is removed."""
    with suppress(AsyncDiffError), _locked(path) as mine:
        return not mine
    return False


def _self() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _held(held: Path, lock: Path) -> InputError:
    """The refusal of a directory or file, with what its holder wrote of itself."""
    try:
        own = json.loads(lock.read_text())
        holder = f"process {own['pid']} on {own['host']} since {own['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        holder = "another process"  # it is just about to say which
    other = "directory" if held.is_dir() else "file"
    return InputError(
        f"{held} is being written by {holder}: wait until it ends, or use another {other}"
    )
