"""Spectra of images, and what the denoiser is told."""

import torch

from asyncdiff_cli.engine.policies.spectra import Spectrum
from asyncdiff_cli.engine.policies.transfer import transfer

IMAGES = Spectrum.of_images()


def grid(steps: int, shift: float) -> torch.Tensor:
    """1 … 1/K, shifted, and 0: FLUX's without resolution, [K + 1]."""
    even = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    return torch.cat([shift * even / (1 + (shift - 1) * even), torch.zeros(1)])


def told(sigmas: torch.Tensor, deviations) -> torch.Tensor:
    """t* by Eq. 6, [K]."""
    times = sigmas[:-2] + (1 + torch.as_tensor(deviations)) * sigmas[:-1].diff()
    return torch.cat([sigmas[:1], times.clamp(1e-3, 1)])


def error(sigmas: torch.Tensor, deviations, solver: str = "euler") -> torch.Tensor:
    return IMAGES.error(transfer(sigmas, told(sigmas, deviations), IMAGES.std, solver))
