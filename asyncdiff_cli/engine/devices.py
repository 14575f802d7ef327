"""Where and in what a model computes: the defaults, and what this machine cannot do."""

from __future__ import annotations

import warnings
from typing import Protocol

import torch

from asyncdiff_cli.engine import dtypes
from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import AsyncDiffWarning, InputError

TORCH_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, own) for name, own in dtypes.DTYPES.items()
}


class Published(Protocol):
    """A model with the dtype that it is published in."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...


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
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(wanted, str) and wanted.type == "cpu":
        wanted = "cpu"  # of several processes, accelerate numbers theirs
    dtypes.check_device(str(wanted))
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise InputError(f"there is no {device} here, where GPUs are cuda:0 to cuda:{count - 1}")
    own = "bf16" if entry is None else entry.dtype
    if dtype is None:
        dtype = TORCH_DTYPES[own] if device.type == "cuda" else torch.float32
    elif isinstance(dtype, str):
        check_choice("dtype", dtype, TORCH_DTYPES)
        dtype = TORCH_DTYPES[dtype]
    if dtype not in TORCH_DTYPES.values():
        raise InputError(f"{dtype} is not a dtype to run a model in; use fp32, bf16 or fp16")
    dtypes.check_computes(device.type, dtypes.dtype_name(dtype))
    if dtype is torch.float16 and entry is not None and own != "fp16":
        warnings.warn(
            f"{entry.name} overflows in fp16, to NaN and black images: it is published in {own}",
            AsyncDiffWarning,
            stacklevel=3,
        )
    return device, dtype


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
