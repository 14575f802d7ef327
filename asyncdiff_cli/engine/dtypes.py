"""What models compute in, by name."""

from __future__ import annotations

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
