"""The Fréchet distance of Gaussians that are fitted to features (Heusel et al., 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from asyncdiff_cli.engine.evaluation.set_metrics.base import SetMetric, Terms

SMALL = 1e-7
"""Square roots of eigenvalues below this share of the largest are rounding."""


class FrechetMetric(SetMetric):
    """|μ − μ_r|² + tr(Σ + Σ_r − 2 (Σ Σ_r)^½), with the covariances' denominators n − 1.

    Fitted to few pictures it is too large, by about a constant over n: what is compared is of equal
    n. Below as many pictures as features Σ is singular, and the value is mostly that bias.
    """

    @staticmethod
    def statistics(features: Tensor) -> dict[str, Tensor]:
        """`mean` [F] and `covariance` [F, F], fp64."""
        values = features.double()
        return {"mean": values.mean(0), "covariance": torch.atleast_2d(values.T.cov())}

    @staticmethod
    def against(statistics: Mapping[str, Tensor]) -> Terms:
        """The distance to Gaussians of these statistics, linearised around the fitted one.

        With Σ_r = L Lᵀ and A = Lᵀ Σ L the last part is tr A^½, and moving a share of the weight to
        picture i changes it by ½ (z_iᵀ A^−½ z_i − tr A^½), z_i = Lᵀ (x_i − μ).
        """
        mean, covariance = statistics["mean"], statistics["covariance"]
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp_min(0).sqrt()

        def terms(features: Tensor) -> Tensor:
            values = features.double()
            centred, shift = values - values.mean(0), values.mean(0) - mean
            z = centred @ root
            squares, basis = torch.linalg.eigh(z.T @ z / len(z))
            s = squares.clamp_min(0).sqrt()
            inverse = torch.where(s > SMALL * s.max(), 1 / s, 0.0)
            along = (z @ basis).square() @ inverse  # its mean is tr A^½
            unbiased = len(values) / max(1, len(values) - 1)
            distances = (
                shift.square().sum()
                + 2 * centred @ shift
                + unbiased * centred.square().sum(1)
                + covariance.trace()
                - unbiased**0.5 * (along + along.mean())
            )
            return distances - distances.mean().clamp(
                max=0
            )  # rounding, where the sets are the same

        return terms

    @classmethod
    def note(cls, n: int, width: int) -> str | None:
        if n > width:
            return None
        return (
            f"{cls.name} fits {width:,} features to {n:,} pictures: its value is mostly the bias of"
            " so few, and only its differences say something"
        )
