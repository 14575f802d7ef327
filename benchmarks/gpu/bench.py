"""A backbone of the benchmark, and what its sections know from one another."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

import torch

from asyncdiff_cli.engine import Backbone
from benchmarks.gpu.architecture import calm
from benchmarks.gpu.settings import Settings


@dataclass
class Bench:
    """The backbone is built when it is first needed, and again after it was released."""

    settings: Settings
    per_image: dict[int, float] = field(default_factory=dict)
    """The stock pipeline's seconds, by batch size, as far as they are known."""
    halved: int = 0
    """How often the random matrices were halved for all to be finite."""
    _backbone: Backbone | None = None

    @property
    def loaded(self) -> Backbone:
        """The backbone, on its device."""
        if self._backbone is None:
            self._backbone = self.settings.make_backbone()
            self.halved = calm(self._backbone)
        return self._backbone

    @property
    def device(self) -> torch.device:
        return self.settings.where

    def release(self) -> None:
        """Give the memory back."""
        self._backbone = None
        gc.collect()
        torch.cuda.empty_cache()

    def seconds(self, batch: int) -> float:
        """About what the stock pipeline takes for so many images; 0 if nothing is known yet."""
        own = self.per_image.get(batch) or min(self.per_image.values(), default=0.0)
        return batch * own
