"""`asyncdiff` in processes of its own, forked from one that has imported all there is to import.

A new interpreter takes seconds for the imports alone. What starts one itself, as `--processes`
does, still pays for it.
"""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import context, forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tests.conftest  # noqa: F401  # sets torch's threads
from asyncdiff_cli.app import run
from asyncdiff_cli.engine.launching import free_port
from asyncdiff_cli.engine.training import start  # noqa: F401  # what the commands import
from tests.helpers.training import environment

gc.freeze()

KILL_AT = "KILL_AT"
"""A variable of a process that is to die: see `_kill_at`."""


class Forked:
    """A command line, with the manners of `subprocess.Popen` and a session of its own."""

    def __init__(self, *arguments: Any, **variables: str) -> None:
        (out, into), (err, onto) = (server().Pipe(duplex=False) for _ in range(2))
        given = list(map(str, arguments)), into, onto, {**environment(), **variables}
        self._process = server().Process(target=_run, args=given)
        self._process.start()
        for end in (into, onto):
            end.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(end.fileno())) for end in (out, err))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Read until it and all that it started have closed their output."""
        watchdog = threading.Timer(timeout, os.killpg, (self.pid, signal.SIGKILL))
        watchdog.start()
        told: list[str] = []
        reader = threading.Thread(target=lambda: told.append(self.stderr.read()))
        reader.start()
        out = self.stdout.read()
        reader.join()
        self._process.join()
        watchdog.cancel()
        return out, told[0]


def ranks(count: int, *arguments: Any) -> list[Forked]:
    """So many processes of one run, as a launcher starts them."""
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    return [Forked(*arguments, **shared, RANK=str(n), LOCAL_RANK=str(n)) for n in range(count)]


def _run(arguments: list[str], out: Connection, err: Connection, variables: dict[str, str]) -> None:
    os.setsid()
    # whoever runs the tests in the background may have left SIGINT ignored, which is inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for end, descriptor in ((out, 1), (err, 2)):
        os.dup2(end.fileno(), descriptor)
        end.close()
    sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["asyncdiff", *arguments]
    if KILL_AT in variables:
        _kill_at(int(variables[KILL_AT]))
    try:
        sys.exit(run())
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()


def _kill_at(count: int) -> None:
    """Kill this process when it has put so many files into their places, before the next one."""
    replace, left = os.replace, itertools.repeat(None, count)

    def replace_or_die(*paths: Any) -> None:
        if next(left, KILL_AT):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)

    os.replace = replace_or_die


@cache
def server() -> context.ForkServerContext:
    server = get_context("forkserver")
    server.set_forkserver_preload([__name__])
    with _importable():
        forkserver.ensure_running()
    return server


@contextmanager
def _importable() -> Iterator[None]:
    """Let a new interpreter find these tests wherever the current directory is."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
