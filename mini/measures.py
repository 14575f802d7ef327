"""What is measured on sets of pictures: Fréchet distance, spectra, and intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)
RESAMPLES = 2000
FEW = 6  # resamples of what takes longer


def summary(values: Sequence[float]) -> dict[str, float | list[float] | int]:
    """Mean with a 95 % percentile bootstrap interval over the pictures."""
    array = np.asarray(values, float)
    rng = np.random.default_rng(0)
    means = array[rng.integers(0, len(array), (RESAMPLES, len(array)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": float(array.mean()), "interval": [float(low), float(high)], "n": len(array)}


def frechet(first: Tensor, second: Tensor) -> float:
    """The Fréchet distance of Gaussians fitted to features [N, F] and [M, F]."""
    (mean, cov), (other, covariance) = _moments(first), _moments(second)
    values, vectors = torch.linalg.eigh(cov)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance @ root).clamp_min(0).sqrt().sum()
    distance = (mean - other).square().sum() + cov.trace() + covariance.trace() - 2 * cross
    return float(distance.clamp_min(0))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.double().mean(0), features.double().T.cov()


def frechet_summary(drawn: Tensor, real: Tensor) -> dict[str, float]:
    """The distance, and the standard deviation over bootstrap resamples of the drawn features."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(drawn), (FEW, len(drawn)), generator=generator)
    spread = np.std([frechet(drawn[pick], real) for pick in picks])
    return {"mean": frechet(drawn, real), "sd": float(spread), "n": len(drawn)}


def spectrum(pictures: Tensor) -> Tensor:
    """The log power, in dB, of each picture at 1, 2, … cycles per side, [N, S / 2 - 1].

    Args:
        pictures: [N, 3, S, S]; the luminance is taken, windowed, and averaged over rings.
    """
    side = pictures.shape[-1]
    weights = torch.tensor(LUMINANCE, device=pictures.device).view(1, 3, 1, 1)
    luminance = (pictures.float() * weights).sum(1)
    window = torch.hann_window(side, device=pictures.device)
    centred = (luminance - luminance.mean((1, 2), keepdim=True)) * window * window[:, None]
    power = torch.fft.rfft2(centred).abs().square()
    down = torch.fft.fftfreq(side, device=pictures.device)[:, None] * side
    across = torch.fft.rfftfreq(side, device=pictures.device)[None] * side
    ring = torch.hypot(down, across).round().long().clamp(max=side // 2).flatten()
    sums = torch.zeros(len(power), side // 2 + 1, device=pictures.device)
    sums.index_add_(1, ring, power.flatten(1))
    rings = sums / torch.bincount(ring, minlength=side // 2 + 1)
    return 10 * (rings[:, 1 : side // 2] + 1e-8).log10().cpu()


def spectrum_error(drawn: Tensor, real: Tensor) -> dict:
    """How far the mean of drawn spectra [N, F] is from that of real ones [M, F], in dB.

    ``mean`` is the root mean square over all frequencies, ``sd`` its standard deviation over
    bootstrap resamples; ``detail`` the mean over the finer half, with its interval.
    """
    target = real.mean(0)

    def error(spectra: Tensor) -> float:
        return float((spectra.mean(0) - target).square().mean().sqrt())

    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(drawn), (FEW, len(drawn)), generator=generator)
    half = drawn.shape[1] // 2
    fine = drawn[:, half:].mean(1) - target[half:].mean()
    spread = float(np.std([error(drawn[pick]) for pick in picks]))
    return {"mean": error(drawn), "sd": spread, "detail": summary(fine.tolist())}


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's ρ, with average ranks for ties; NaN where one of them is constant."""
    first, second = (_ranks(values) for values in (one, other))
    first, second = first - first.mean(), second - second.mean()
    length = np.sqrt(np.square(first).sum() * np.square(second).sum())
    return float((first * second).sum() / length) if length > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
