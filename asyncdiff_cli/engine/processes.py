"""Several processes of one command: started on this machine, or by a launcher on several."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs, gather_object

import asyncdiff_cli
from asyncdiff_cli.engine.devices import resolve_device
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.interrupts import exit_code
from asyncdiff_cli.engine.messages import SAID

PROCESS_TIMEOUT = timedelta(hours=3)
"""How long a process waits for the others: the first may be downloading a model."""
GRACE = 30.0
"""Seconds that processes get to leave all in order, once another has died."""
CPU = "cpu"
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


def join(device: str | None, tracker: str | None = None, path: Path | None = None) -> Accelerator:
    """Join the processes of a run, of which this may be the only one.

    The processes talk over gloo also where they compute on GPUs: what they exchange is small, and a
    process that waits for one that has died is told, where NCCL would wait on.

    Args:
        device: as `load_backbone`.
        tracker, path: what is logged to, and the run's directory.

    A process computes on the GPU of its place on the machine, or on the only one that it sees.

    Raises:
        InputError: for a device that is not there, or one GPU for several processes.
    """
    on_cpu = resolve_device(device, torch.float32)[0].type == "cpu"
    group = InitProcessGroupKwargs(backend="gloo", timeout=PROCESS_TIMEOUT)
    one_of_several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not on_cpu and device is not None and (index := torch.device(device).index) is not None:
        if one_of_several:
            raise InputError(f"several processes use a GPU each: give --device cuda, not {device}")
        torch.cuda.set_device(index)
    handlers = [group] if one_of_several else []
    accelerator = Accelerator(
        cpu=on_cpu, log_with=tracker, project_dir=path, kwargs_handlers=handlers
    )
    if not on_cpu:  # with its number: to some libraries cuda alone is the first one
        accelerator.state.device = torch.device("cuda", torch.cuda.current_device())
    if one_of_several:
        # accelerate waits by a tensor on the GPU of this number, which a process may not see
        PartialState().wait_for_everyone = torch.distributed.barrier
        check_apart(gather_object([_device_id(accelerator.device)]))
    # gloo's threads abort a process that still has them when it ends
    atexit.register(accelerator.state.destroy_process_group)
    return accelerator


@contextmanager
def in_turn(accelerator: Accelerator) -> Iterator[None]:
    """Have one process of a run do what the others then find done, one of each machine next.

    Of what is downloaded there is one copy on each machine, or one for all.
    """
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        yield


def _device_id(device: torch.device) -> str:
    """A GPU's own number, which no other one has; "cpu"."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else CPU


def check_apart(devices: Sequence[str]) -> None:
    """The processes of a run compute on the CPU, or on a GPU each.

    Args:
        devices: by rank, the number of each one's GPU, or "cpu".

    Raises:
        InputError: if some share one, or have none.
    """
    on_cpu = [rank for rank, device in enumerate(devices) if device == CPU]
    if len(on_cpu) == len(devices):
        return
    if on_cpu:
        raise InputError(
            f"process {on_cpu[0]} sees no GPU and others do: give each task a GPU, or --device cpu"
        )
    for rank, device in enumerate(devices):
        if (first := devices.index(device)) != rank:
            raise InputError(
                f"processes {first} and {rank} see one and the same GPU: start as many processes as"
                " there are GPUs"
            )


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
    where = resolve_device(device, torch.float32)[0]
    if where.type == "cuda" and processes > torch.cuda.device_count():
        raise InputError(
            f"{processes} processes need {processes} GPUs, and there are"
            f" {torch.cuda.device_count()}: use a smaller --processes, or --device cpu"
        )
    if processes > (most := max(FEW_PROCESSES, os.cpu_count() or 1)):
        raise InputError(f"this machine is not asked for more than {most} processes at once")
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
