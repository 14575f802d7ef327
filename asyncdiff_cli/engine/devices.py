"""Where and in what a model computes: the defaults, and what this machine cannot do."""

from __future__ import annotations

import torch

from asyncdiff_cli.engine import dtypes
from asyncdiff_cli.engine.dtypes import Published
from asyncdiff_cli.engine.errors import InputError

TORCH_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, own) for name, own in dtypes.DTYPES.items()
}


def resolve_device(
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    entry: Published | None = None,
) -> tuple[torch.device, torch.dtype]:
    """Fill in the defaults of `load_backbone`, and refuse what this machine cannot do.

    Args:
        entry: the backbone, whose dtype is the default on a GPU and which fp16 may not suit;
            without it that is bf16.

    Raises:
        InputError: for an unknown device or dtype, CUDA where there is none, or fp16 on a CPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if isinstance(device, torch.device) and device.type == "cpu":
        device = "cpu"  # of several processes, accelerate numbers theirs
    if dtype is not None and not isinstance(dtype, str):
        if dtype not in TORCH_DTYPES.values():
            raise InputError(f"{dtype} is not a dtype to run a model in; use fp32, bf16 or fp16")
        dtype = dtypes.dtype_name(dtype)
    wanted = None if device is None else str(device)
    names = dtypes.resolve_names(wanted, dtype, entry, gpus)
    return torch.device(names[0]), TORCH_DTYPES[names[1]]


def check_gpus(processes: int, device: str | None) -> None:
    """There is a GPU for each of several processes, where they compute on GPUs.

    Raises:
        InputError: if not, and as `resolve_device`.
    """
    where = resolve_device(device, torch.float32)[0]
    if where.type == "cuda" and processes > torch.cuda.device_count():
        raise InputError(
            f"{processes} processes need {processes} GPUs, and there are"
            f" {torch.cuda.device_count()}: use a smaller --processes, or --device cpu"
        )
