"""What a plan takes, with how that is known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from asyncdiff_cli.engine.backbones import weights
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.registry import BackboneEntry
from asyncdiff_cli.engine.drawing.plan import Plan
from asyncdiff_cli.engine.errors import AsyncDiffError


@dataclass(frozen=True)
class Estimate:
    """A number and how it was come by, or None and why it is not known."""

    value: float | None
    reason: str


UNKNOWN = Estimate(None, "its configuration is not on this disk")


@dataclass(frozen=True)
class ModelNeeds:
    """A model, and what it needs."""

    model: ModelChoice
    """Every option of the model, as far as it is known what is in force."""
    weights: Estimate
    """Bytes of all weights."""
    memory: Estimate
    """Bytes on the device at most, the weights among them."""
    advice: str | None = None
    """What to change if it does not fit."""

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "backbone": self.model.name,
            "device": self.model.device,
            "dtype": self.model.dtype,
            "model": self.model.to_dict(),
            "weights_bytes": self.weights.value,
            "weights_reason": self.weights.reason,
            "memory_bytes": self.memory.value,
            "memory_reason": self.memory.reason,
            "advice": self.advice,
        }


class LookedAt(NamedTuple):
    """A model before it is loaded."""

    entry: BackboneEntry
    size: int
    """Height and width in pixels unless asked otherwise; 0 while they are not known."""
    needs: ModelNeeds


@dataclass(frozen=True)
class Forecast:
    """A plan, and what it needs."""

    plan: Plan
    needs: ModelNeeds
    seconds: Estimate

    def to_dict(self, out: Path) -> dict[str, Any]:
        """The run as JSON values; `taken` are those of its files that are there already."""
        files = [out / file for file in self.plan.files]
        return {
            "dry_run": True,
            "images": self.plan.images,
            "files": [str(file) for file in files],
            "taken": [str(file) for file in files if os.path.lexists(file)],
            "settings": self.plan.settings,
            **self.needs.to_dict(),
            "seconds": self.seconds.value and round(self.seconds.value, 2),
            "seconds_reason": self.seconds.reason,
        }


def stored_on_the_hub(entry: BackboneEntry, file: int | None = None) -> Estimate:
    """Bytes of the weights of a backbone that is not on this disk.

    Args:
        file: bytes of the file that takes the transformer's place, if one does.
    """
    assert entry.repo is not None  # else it is a part of the installation
    try:
        return stored(weights.download_sizes(entry.repo), file)
    except AsyncDiffError as error:
        return Estimate(None, str(error))


def stored(
    sizes: Mapping[str, int], file: int | None, how: str = "as stored on the hub"
) -> Estimate:
    """Bytes of the components, of which a file may take the transformer's place."""
    if file is None:
        return Estimate(sum(sizes.values()), how)
    others = sum(size for name, size in sizes.items() if name != "transformer")
    return Estimate(others + file, f"{file:,} bytes of the file, and the others {how}")
