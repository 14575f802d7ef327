"""Checks of tensors that do not wait for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from asyncdiff_cli.engine.errors import AsyncDiffError


@dataclass
class DeferredChecks:
    """What must be true of a run, read at once where that is free, and on a GPU later.

    Reading a number of a GPU waits for all that was asked of it. So there the answers are gathered,
    and read together at the end, or where something is read anyway.
    """

    _pending: list[tuple[Tensor, Callable[[], AsyncDiffError]]] = field(default_factory=list)

    def require(self, good: Tensor, error: Callable[[], AsyncDiffError]) -> None:
        """Have `error()` raised if `good`, a truth value of shape [], is not true."""
        if good.device.type != "cpu":
            self._pending.append((good, error))
        elif not good:
            raise error()

    def settle(self) -> None:
        """Read the answers.

        Raises:
            AsyncDiffError: the first one that was required against.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        answers = torch.stack([good for good, _ in pending]).cpu()
        for good, (_, error) in zip(answers, pending, strict=True):
            if not good:
                raise error()


def is_finite(tensor: Tensor) -> Tensor:
    """Whether no element is NaN or infinite, bool []: then their sum is neither."""
    return tensor.sum(dtype=torch.float32).isfinite()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """The numbers on a device; of one that is not a CPU it does not wait."""
    if values.device.type != "cpu" or device.type == "cpu":
        return values.to(device)
    if values.numel() == 1:
        return torch.full(values.shape, values.item(), dtype=values.dtype, device=device)
    return values.pin_memory().to(device, non_blocking=True)
