"""Residual noise of any picture: the guard against a policy that buys its reward with noise."""

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

ROOT3 = 3**0.5
DB2_HIGH = np.array([1 - ROOT3, ROOT3 - 3, 3 + ROOT3, -1 - ROOT3]) / (4 * 2**0.5)
"""The high pass of Daubechies' wavelet with two vanishing moments: blind to linear shades."""
NORMAL_MAD = 0.6744897501960817
"""Median of |x| for a standard normal x."""


class Noise(Reward):
    """Minus the standard deviation of white Gaussian noise in a picture, of 255 levels.

    The median absolute value of the finest diagonal wavelet coefficients, by what it is for a
    standard normal (Donoho and Johnstone, Biometrika 1994, and scikit-image's `estimate_sigma`).
    Edges and detail are few large coefficients, which a median does not follow; a texture that
    covers most of the picture at the scale of single pixels is taken for noise.
    """

    name: ClassVar[str] = "noise"
    range: ClassVar[tuple[float, float]] = (float("-inf"), 0.0)
    reads_prompt: ClassVar[bool] = False
    smallest: ClassVar[int] = len(DB2_HIGH)

    @classmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        """A formula has nothing to load."""
        return cls()

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        return torch.tensor([-noise_level(np.asarray(image.convert("RGB"))) for image in images])


def noise_level(pixels: np.ndarray) -> float:
    """The standard deviation of the noise in pixels [H, W, 3], in their unit.

    Raises:
        InputError: for fewer than 4×4 pixels, which the filter needs.
    """
    taps = len(DB2_HIGH)
    height, width = pixels.shape[:2]
    if min(height, width) < taps:
        raise InputError(f"noise needs {taps}×{taps} pixels; this picture has {width}×{height}")
    values = pixels.astype(np.float64)
    down = sum(h * values[i : height - taps + 1 + i] for i, h in enumerate(DB2_HIGH))
    diagonal = sum(h * down[:, i : width - taps + 1 + i] for i, h in enumerate(DB2_HIGH))
    return float(np.median(np.abs(diagonal)) / NORMAL_MAD)
