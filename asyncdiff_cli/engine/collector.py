"""Python's collector of objects that hold each other, kept from looking where there is nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Collect nothing within the block, which imports or loads.

    The collector walks through what has come again and again, as more comes: a fifth of the time
    that torch, diffusers and transformers take to be imported. None of it is to go: what there is
    after new modules have come is not walked through again.
    """
    if not gc.isenabled():  # by who is responsible for that, such as a block around this one
        yield
        return
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        gc.enable()
