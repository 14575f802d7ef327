"""GPUs of this machine, counted without torch, whose import takes seconds."""

from __future__ import annotations

import ctypes
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@cache
def count_gpus() -> int:
    """Count the GPUs that torch finds here, by asking their driver as it does."""
    build = _build_of_torch()
    if "hip" in build:  # whose driver is another
        import torch

        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return 0
    newest, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(newest))
    works = "cuda" in build and newest.value // 1000 >= build["cuda"]
    if not works or driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def _build_of_torch() -> dict[str, int]:
    """The platforms that torch was built for, with their major versions, read in its source."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return {}
    text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    versions = re.findall(r"^(cuda|hip)\b.*= '(\d+)", text, re.MULTILINE)
    return {name: int(major) for name, major in versions}
