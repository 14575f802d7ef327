"""Several processes of one command, as each of them joins the others."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs, gather_object

from asyncdiff_cli.engine.devices import resolve_device
from asyncdiff_cli.engine.errors import InputError

PROCESS_TIMEOUT = timedelta(hours=3)
"""How long a process waits for the others: the first may be downloading a model."""
CPU = "cpu"


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
