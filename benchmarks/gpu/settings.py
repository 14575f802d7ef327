"""What is measured, at which size, and how long it may take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from asyncdiff_cli.engine import REGISTRY, Backbone
from asyncdiff_cli.engine.devices import resolve_device
from benchmarks.gpu.architecture import ARCHITECTURES, Architecture, make_backbone

SECTIONS = ("exactness", "overhead", "training", "memory", "speed", "compile")
"""Sections in the order in which they run: what matters most comes first, and last what leaves
the blocks of the transformer compiled."""
IMPORTS = 120.0
"""Seconds that a process can have spent before this module; more is a clock that was set."""

RESERVE = 0.2
"""Share of the budget."""


class OverBudgetError(Exception):
    """There is no time for this any more."""


def process_start() -> float:
    """When this process was started, by the monotonic clock."""
    age = time.time() - psutil.Process().create_time()
    return time.monotonic() - min(max(0.0, age), IMPORTS)


@dataclass(frozen=True)
class Settings:
    """The size of a run. The defaults are those of the table in docs/results.md."""

    backbone: str = "flux"
    """A key of `ARCHITECTURES`."""
    device: str | None = None
    dtype: str | None = None
    layers: int | None = None
    """Blocks of each kind; None for all."""
    tiny: bool = False
    """A toy's widths in place of the real ones, to try the benchmark out."""
    size: int = 512
    """Height and width in pixels."""
    steps: int | None = None
    """None for the paper's."""
    batches: tuple[int, ...] = (1, 4)
    rounds: int = 12
    """Rounds at most; fewer where a section's share of the budget is used up."""
    group: int = 16
    """Images of a training iteration."""
    product: int | None = None
    """Side of the square matrices that the denoiser's speed is compared with."""
    compiler: str = "inductor"
    """The backend of `torch.compile`."""
    scratch: Path | None = None
    """Where the pipeline is written for the memory section; None for the temporary directory."""
    budget: float = 570.0
    """Seconds that the whole run may take, from the start of the process on."""
    begun: float = field(default_factory=process_start)

    @property
    def where(self) -> torch.device:
        return resolve_device(self.device, self.dtype, REGISTRY[self.backbone])[0]

    @property
    def precision(self) -> torch.dtype:
        return resolve_device(self.device, self.dtype, REGISTRY[self.backbone])[1]

    @property
    def evaluations(self) -> int:
        """Steps, each of which asks the denoiser once."""
        return self.steps or REGISTRY[self.backbone].num_inference_steps

    @property
    def left(self) -> float:
        """Seconds until the budget is used up."""
        return self.begun + self.budget - time.monotonic()

    def share(self, part: float) -> float:
        """Seconds of a part of the budget, or what is left of it if that is less."""
        return max(0.0, min(part * self.budget, self.left))

    @property
    def reserve(self) -> float:
        """Seconds that the memory of models held in other ways leaves to the sections after it."""
        return RESERVE * self.budget

    def check_left(self, seconds: float) -> None:
        """Refuse to begin what would take longer than what is left of the budget.

        Raises:
            OverBudgetError: if it would.
        """
        if seconds > self.left or self.left <= 0:
            raise OverBudgetError(
                f"it takes some {max(1.0, seconds):.0f} s, and {max(0.0, self.left):.0f} are left"
                f" of --budget {self.budget:g}"
            )

    @cached_property
    def architecture(self) -> Architecture:
        """What these settings leave of the real one."""
        whole = ARCHITECTURES[self.backbone]
        narrow = whole.narrowed() if self.tiny else whole
        return narrow if self.layers is None else narrow.shortened(self.layers)

    def make_backbone(self) -> Backbone:
        """Draw the weights of the architecture on the device."""
        return make_backbone(
            self.backbone, self.architecture, self.where, self.precision, self.size
        )
