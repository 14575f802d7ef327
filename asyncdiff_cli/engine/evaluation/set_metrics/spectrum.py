"""Radial spectrum error: how much too little or too much pictures have of each frequency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.set_metrics.base import SetMetric, Terms
from asyncdiff_cli.engine.rewards.mini_quality import to_pixels

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of R, G and B (Rec. 709)."""
FLOOR = 1e-8
"""Power that is added before the logarithm, far below the rounding to 8 bits."""


class RadialSpectrum(SetMetric):
    """The root mean square over the frequencies of how two mean log spectra differ, in dB.

    Of n pictures its square is too large by the variance of a spectrum over n.
    """

    name: ClassVar[str] = "spectrum"

    @classmethod
    def load(cls, path: str | Path | None = None) -> Self:
        """A formula.

        Raises:
            InputError: for a path.
        """
        if path is not None:
            raise InputError("spectrum is a formula: it takes no file")
        return cls()

    def _features(self, images: list[Image.Image]) -> Tensor:
        return spectra(torch.stack([to_pixels(image) for image in images]))

    @staticmethod
    def statistics(features: Tensor) -> dict[str, Tensor]:
        """The `mean` spectrum, fp64 [F]."""
        return {"mean": features.double().mean(0)}

    @staticmethod
    def against(statistics: Mapping[str, Tensor]) -> Terms:
        """The error to this mean spectrum, linearised around the pictures' own."""

        def terms(features: Tensor) -> Tensor:
            values = features.double()
            apart = values.mean(0) - statistics["mean"]
            error = apart.square().mean().sqrt()
            if error == 0:
                return values.new_zeros(len(values))
            return error + (values - values.mean(0)) @ apart / (len(apart) * error)

        return terms


def spectra(pictures: Tensor) -> Tensor:
    """The log power in dB of each picture at 1, 2, … S/2 − 1 cycles per side, [N, S/2 − 1].

    The mean of the luminance is taken away and a Hann window is laid over it; its power spectrum is
    averaged over the ring of all frequencies that round to as many cycles.

    Args:
        pictures: [N, 3, S, S] in [-1, 1].

    Raises:
        InputError: for pictures that are not square, or smaller than 4×4.
    """
    height, side = pictures.shape[-2:]
    if height != side or side < 4:
        raise InputError(f"spectrum needs square pictures from 4×4 pixels, not {side}×{height}")
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
    return 10 * (rings[:, 1 : side // 2] + FLOOR).log10().cpu()
