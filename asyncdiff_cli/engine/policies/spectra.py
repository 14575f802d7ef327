"""How much of images there is at each scale of detail, and what a run is worth by that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.transfer import transfer

SIZE = 32
"""Components down and across of the spectrum that stands for images in general."""
CORNER = 1.0
"""Cycles per image at which its power has fallen to half."""
FAINT = 0.02
"""The standard deviation of what is not there: as good as nothing beside the noise, of 1."""
MOST_STEPS = 1000
"""Steps that a run is compared with at most."""
Rows: TypeAlias = tuple[tuple[float, float, float], ...]
"""Frequency, s and weight of a spectrum's components, as plain numbers."""


@dataclass(frozen=True)
class Spectrum:
    """Standard deviations of data with independent components, a number per radial frequency.

    Attributes:
        frequency: cycles per image, rising, [n].
        std: s of a component at each, fp64 [n]; that of the noise is 1.
        weight: each one's share of all components, fp64 [n], of sum 1.
    """

    frequency: Tensor
    std: Tensor
    weight: Tensor

    @classmethod
    def of_images(cls, size: int = SIZE, corner: float = CORNER) -> Self:
        """Power ∝ 1/(f² + `corner`²), scaled to a mean of 1: natural images, near enough."""
        radius, _, counts = _radii(size, size)
        power = 1 / (radius.square() + corner**2)
        weight = counts / counts.sum()
        return cls(radius, (power / (weight * power).sum()).sqrt(), weight)

    @classmethod
    def of_latents(cls, latents: Tensor) -> Self:
        """Measure clean latents in the units in which they are noised.

        Args:
            latents: [B, C, H, W]. Their mean is part of the power at f = 0.

        Raises:
            InputError: for another shape, or values that are not finite.
        """
        if latents.ndim != 4 or not latents.numel() or not latents.isfinite().all():
            raise InputError("a spectrum needs finite latents [B, C, H, W]")
        height, width = latents.shape[-2:]
        radius, index, counts = _radii(height, width)
        power = torch.fft.fft2(latents.double(), norm="ortho").abs().square().mean((0, 1))
        sums = torch.zeros_like(radius).index_add(0, index, power.flatten().cpu())
        return cls(radius, (sums / counts).sqrt(), counts / counts.sum())

    @classmethod
    def of_rows(cls, rows: Rows) -> Self:
        """Make a spectrum of plain numbers; its weights are scaled to a sum of 1."""
        frequency, std, weight = torch.tensor(rows, dtype=torch.float64).unbind(1)
        return cls(frequency, std, weight / weight.sum())

    @property
    def rows(self) -> Rows:
        """The spectrum as plain numbers."""
        columns = (column.tolist() for column in (self.frequency, self.std, self.weight))
        return tuple(zip(*columns, strict=True))

    def banded(self) -> Spectrum:
        """Give a number per whole cycle, the root mean square of the components nearest to it."""
        bands, index = self.frequency.round().unique(return_inverse=True)
        weight = torch.zeros_like(bands).index_add(0, index, self.weight)
        power = torch.zeros_like(bands).index_add(0, index, self.weight * self.std.square())
        return Spectrum(bands, (power / weight).sqrt(), weight)

    def error(self, factors: Tensor) -> Tensor:
        """Mean squared error of `factors` [n] against `std`, over all components, []."""
        return (self.weight * (factors - self.std).square()).sum()


def _radii(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct radial frequencies [n], which of them each component is [H·W], and how often."""
    rows, columns = (torch.fft.fftfreq(side, 1 / side).double() for side in (height, width))
    squares = (rows[:, None].square() + columns.square()).round().flatten()
    distinct, index, counts = squares.unique(return_inverse=True, return_counts=True)
    return distinct.sqrt(), index, counts.double()


def residual_noise(
    sigmas: Tensor,
    cond_sigmas: Tensor,
    solver: str = "euler",
    velocity_scale: Tensor | None = None,
    latent_scale: Tensor | None = None,
) -> float:
    """Compute how much noise a run leaves where the data have next to nothing, in [0, ∞).

    It is the size of a component of s = `FAINT` as it comes out, over s: 1 is exact.

    Args:
        sigmas, cond_sigmas, solver, velocity_scale, latent_scale: as of `transfer`.
    """
    std = torch.tensor([FAINT], dtype=torch.float64)
    factor = transfer(sigmas, cond_sigmas, std, solver, velocity_scale, latent_scale)
    return float(factor.abs() / FAINT)


def worth_steps(
    error: float, spectrum: Spectrum, grid: Callable[[int], Tensor], most: int = MOST_STEPS
) -> int | None:
    """Count the steps of synchronous Euler that come as near to the data.

    Args:
        error: of a run, as `Spectrum.error` has it.
        grid: K to the grid [K + 1].

    Returns:
        The least K whose error is no larger; None if even `most` steps do not reach it.
    """

    def reached(steps: int) -> bool:
        sigmas = grid(steps)
        return float(spectrum.error(transfer(sigmas, sigmas[:-1], spectrum.std))) <= error

    return next((steps for steps in range(1, most + 1) if reached(steps)), None)
