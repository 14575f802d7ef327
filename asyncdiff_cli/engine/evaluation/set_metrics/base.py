"""What every set metric is: features of pictures, statistics of a reference, and a distance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.rewards.base import REWARD_BATCH_SIZE
from asyncdiff_cli.engine.rewards.precision import whole_fp32

Terms = Callable[[Tensor], Tensor]
"""Makes of features [n, F] one term per picture, fp64 [n], whose mean is the metric."""


class SetMetric(ABC):
    """A distance between the features of two sets of pictures. Lower is better.

    Its value falls with n, the number of pictures, even where nothing else changes: only values of
    equal n compare.
    """

    name: ClassVar[str]
    at_drawn_size: ClassVar[bool] = True
    """Whether reference pictures are brought to the size of those that are drawn."""

    model: Any = None
    """The torch module; None for a formula."""
    weights: str | None = None
    """What tells its weights from others; None for a formula."""

    @classmethod
    @abstractmethod
    def load(cls, path: str | Path | None = None) -> Self:
        """The metric with its weights, in fp32 on the CPU.

        Args:
            path: a local copy of them.
        """

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Features of RGB images of one size, fp32 [N, F] on the CPU.

        Raises:
            AsyncDiffError: for one that is NaN or infinite.
        """
        with whole_fp32():
            chunks = [
                self._features(list(images[i : i + REWARD_BATCH_SIZE])).float().cpu()
                for i in range(0, len(images), REWARD_BATCH_SIZE)
            ]
        features = torch.cat(chunks)
        if not features.isfinite().all():
            raise AsyncDiffError(f"a feature of {self.name} is NaN or infinite")
        return features

    @property
    def device(self) -> torch.device:
        """Where its model is."""
        return torch.device("cpu") if self.model is None else next(self.model.parameters()).device

    @abstractmethod
    def _features(self, images: list[Image.Image]) -> Tensor:
        """Features of at most `REWARD_BATCH_SIZE` images, [N, F] on any device."""

    @staticmethod
    @abstractmethod
    def statistics(features: Tensor) -> dict[str, Tensor]:
        """All that is needed of the reference's features [M, F]."""

    @staticmethod
    @abstractmethod
    def against(statistics: Mapping[str, Tensor]) -> Terms:
        """The distance to a reference of these statistics."""

    @classmethod
    def note(cls, n: int, width: int) -> str | None:
        """What to know about the value of n pictures with features of this width."""
        return None
