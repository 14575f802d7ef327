"""What models compute in and where, by name."""

from __future__ import annotations

import re

from asyncdiff_cli.engine.errors import InputError

DTYPES = {
    "fp16": "float16",
    "float16": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp32": "float32",
    "float32": "float32",
}
"""What a model computes in, and torch's names for it."""


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
