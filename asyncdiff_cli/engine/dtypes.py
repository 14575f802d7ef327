"""What models compute in and where, by name."""

from __future__ import annotations

import re
import warnings
from typing import Protocol

from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import AsyncDiffWarning, InputError

DTYPES = {
    "fp16": "float16",
    "float16": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp32": "float32",
    "float32": "float32",
}
"""What a model computes in, and torch's names for it."""


class Published(Protocol):
    """A model with the dtype that it is published in."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...


def resolve_names(
    device: str | None, dtype: str | None, entry: Published | None, gpus: int
) -> tuple[str, str]:
    """Fill in the defaults of `load_backbone`: the device's name, and torch's name of the dtype.

    Args:
        entry: as of `resolve_device`.
        gpus: how many there are.

    Raises:
        InputError: as `resolve_device`.
    """
    device = device or ("cuda" if gpus else "cpu")
    check_device(device)
    kind, _, index = device.partition(":")
    if kind == "cuda" and not gpus:
        raise InputError("there is no CUDA device here; use --device cpu")
    if kind == "cuda" and int(index or 0) >= gpus:
        raise InputError(f"there is no {device} here, where GPUs are cuda:0 to cuda:{gpus - 1}")
    own = "bf16" if entry is None else entry.dtype
    dtype = dtype or (own if kind == "cuda" else "fp32")
    check_choice("dtype", dtype, DTYPES)
    check_computes(kind, dtype)
    if entry is not None and DTYPES[dtype] == DTYPES["fp16"] != DTYPES[own]:
        warnings.warn(
            f"{entry.name} overflows in fp16, to NaN and black images: it is published in {own}",
            AsyncDiffWarning,
            stacklevel=3,
        )
    return device, DTYPES[dtype]


def dtype_name(dtype: object) -> str:
    """torch's name of a dtype, or of a text that may be one, without the name of torch."""
    return str(dtype).removeprefix("torch.")


def check_device(name: str) -> None:
    """A device is named as torch names it; whether it is there is not asked.

    Raises:
        InputError: for another name.
    """
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9]\d?))?", name):
        raise InputError(f"unknown device {name!r}; use cpu, cuda or cuda:N")


def check_computes(device_type: str, dtype: str) -> None:
    """A kind of device computes in a dtype of `DTYPES`.

    Raises:
        InputError: for fp16 on a CPU.
    """
    if device_type == "cpu" and DTYPES.get(dtype) == DTYPES["fp16"]:
        raise InputError("fp16 needs a GPU, and the device is the CPU; use fp32 or bf16")
