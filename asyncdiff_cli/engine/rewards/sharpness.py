"""How much detail a picture has: reported beside the rewards, never one by default."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.rewards.base import Reward

REC_601 = (0.299, 0.587, 0.114)
"""Weights of R, G and B (ITU-R BT.601)."""


class Sharpness(Reward):
    """Mean absolute difference of neighbouring pixels' luminance, of 255; noise is sharp too."""

    name: ClassVar[str] = "sharpness"
    range: ClassVar[tuple[float, float]] = (0.0, 255.0)
    reads_prompt: ClassVar[bool] = False
    smallest: ClassVar[int] = 2

    @classmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        """A formula has nothing to load."""
        return cls()

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        return torch.tensor([detail(np.asarray(image.convert("RGB"))) for image in images])


def detail(pixels: np.ndarray) -> float:
    """Mean absolute difference of neighbours' luminance, of pixels [H, W, 3], in their unit.

    Raises:
        InputError: for a picture that is one pixel high or wide.
    """
    if min(pixels.shape[:2]) < 2:
        raise InputError("sharpness needs pictures of at least 2×2 pixels")
    luminance = pixels.astype(np.float64) @ REC_601
    across, down = np.abs(np.diff(luminance, axis=1)), np.abs(np.diff(luminance, axis=0))
    return float((across.mean() + down.mean()) / 2)
