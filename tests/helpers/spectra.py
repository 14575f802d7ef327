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


def component_std(spectrum: Spectrum, size: int) -> torch.Tensor:
    """s of each component of a picture, [size, size], of a spectrum with all its frequencies."""
    side = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    squares = (side[:, None].square() + side.square()).flatten().tolist()
    of_frequency = dict(
        zip(spectrum.frequency.square().round().tolist(), spectrum.std, strict=True)
    )
    return torch.stack([of_frequency[square] for square in squares]).reshape(size, size)


def coloured(spectrum: Spectrum, count: int, size: int = 32) -> torch.Tensor:
    """Gaussian latents [count, 4, size, size] of a spectrum with all frequencies of that size."""
    noise = torch.randn(count, 4, size, size, generator=torch.Generator().manual_seed(0))
    waves = torch.fft.fft2(noise.double()) * component_std(spectrum, size)
    return torch.fft.ifft2(waves).real
