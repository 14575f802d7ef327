"""What fp32 means while rewards score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

backends: Any = torch.backends

OPERATIONS = (
    backends.cuda.matmul,
    backends.cudnn.conv,
    backends.cudnn.rnn,
    backends.mkldnn.matmul,
    backends.mkldnn.conv,
    backends.mkldnn.rnn,
)
"""Where torch may compute fp32 in fewer bits; for cuDNN's convolutions it does so by default."""


@contextmanager
def whole_fp32() -> Iterator[None]:
    """Compute fp32 in fp32 within the block, and not in TF32 or bf16.

    A TF32 convolution moves the published scores by 23 to 45 times what they are proven to.
    """
    before = [operation.fp32_precision for operation in OPERATIONS]
    try:
        for operation in OPERATIONS:
            operation.fp32_precision = "ieee"
        yield
    finally:
        for operation, precision in zip(OPERATIONS, before, strict=True):
            operation.fp32_precision = precision
