"""Several processes of one command, started on this machine."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncdiff_cli
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.interrupts import exit_code
from asyncdiff_cli.engine.messages import SAID

GRACE = 30.0
"""Seconds that processes get to leave all in order, once another has died."""
FEW_PROCESSES = 8
"""Processes that any machine may be asked for; more need as many cores."""
ISOLATED = f"""\
import sys
sys.path[:] = [*filter(None, sys.path), {str(Path(asyncdiff_cli.__file__).parents[1])!r}]
from asyncdiff_cli.__main__ import main
main()
"""
"""The program of a child: the same package, and no module of the current directory, which `python
-m` would import before those that are installed."""
PR_SET_PDEATHSIG = 1
"""The option of Linux's prctl."""


def must_launch(processes: int) -> bool:
    """Whether so many processes are wanted and none of them is this one.

    Raises:
        InputError: for a number below 1, or if a launcher has started another number of them.
    """
    if processes < 1:
        raise InputError(f"the number of processes is a whole number from 1, not {processes}")
    started = os.environ.get("WORLD_SIZE")
    if started is not None and processes not in (1, int(started)):
        raise InputError(f"a launcher has started {started} processes: leave out --processes")
    return started is None and processes > 1


def launch(processes: int, arguments: Sequence[str], device: str | None) -> int:
    """Run a command line in several processes of this machine; the exit code.

    The processes find one another as those of torch's and accelerate's launchers do. If one dies,
    the others are stopped.

    Args:
        arguments: those of `asyncdiff`, its `--processes` among them.
        device: as `load_backbone`.

    Raises:
        InputError: if there are not so many GPUs or, beyond `FEW_PROCESSES`, cores.
        AsyncDiffError: if a signal killed one.
    """
    if processes > (most := max(FEW_PROCESSES, os.cpu_count() or 1)):
        raise InputError(f"this machine is not asked for more than {most} processes at once")
    from asyncdiff_cli.engine.devices import check_gpus

    check_gpus(processes, device)
    line = [sys.executable, "-c", ISOLATED, *arguments]
    shared = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    children: list[subprocess.Popen[bytes]] = []
    with TemporaryDirectory(prefix="asyncdiff-") as said:
        try:
            for rank in range(processes):
                own = {SAID: said, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                begin = _end_with_parent if sys.platform == "linux" else None
                children.append(subprocess.Popen(line, env=shared | own, preexec_fn=begin))
            return _wait(children)
        finally:
            for child in children:
                child.kill()


def _end_with_parent() -> None:
    """Have the kernel end a new process when the one that starts it is killed.

    It would go on otherwise, beside those of the same command given again.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for processes, and stop the others once one has failed; the exit code.

    Raises:
        AsyncDiffError: if a signal killed one.
    """
    stopped: KeyboardInterrupt | None = None
    deadline = float("inf")
    codes: list[int] = []  # of those that have failed of themselves
    while None in (ended := [child.poll() for child in children]):
        try:
            if not codes and (codes := [code for code in ended if code]):
                _stop(children)
                deadline = min(deadline, time.monotonic() + GRACE)
            if time.monotonic() > deadline:
                for child in children:
                    child.kill()
            time.sleep(0.1)
        except KeyboardInterrupt as interrupt:  # which may have come to this process alone
            stopped = stopped or interrupt
            _stop(children)
            deadline = min(deadline, time.monotonic() + GRACE)
    codes = codes or [child.returncode for child in children if child.returncode]
    if stopped is not None and codes:
        return exit_code(stopped)
    if killed := [-code for code in codes if code < 0]:
        raise AsyncDiffError(f"a process of this run has died of signal {killed[0]}")
    return max(codes, default=0)  # those that waited for one with bad input end with 1
