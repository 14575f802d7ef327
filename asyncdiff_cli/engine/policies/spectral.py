"""The schedule of deviations that is best where everything is known, derived for a run's grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.checks import check_weight
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.policies.base import Described, Policy, StepState
from asyncdiff_cli.engine.policies.given import ScheduledDeviation
from asyncdiff_cli.engine.policies.spectra import FAINT, Rows, Spectrum
from asyncdiff_cli.engine.policies.transfer import transfer

WEIGHT = 1.0
ROUGHNESS = 0.1
"""What the mean square of the jumps between neighbours costs, in errors of the synchronous run.
Without it neighbours go from bound to bound for next to nothing: the least error is flat there."""
STARTS = (0.0, 0.5)
"""Constant deviations that the search begins at; the best end is taken."""
DEVIATION_DECIMALS = 4
"""Decimals of a deviation, so that processors that round differently find the same."""


@dataclass(frozen=True)
class SpectralDeviation(Described):
    """The deviations that bring Gaussian data of the spectrum of images out best, without a model.

    They minimise the mean squared error of what comes out at each scale of detail, plus `weight`
    times the same where the data have next to nothing, which is noise; see
    `optimal_deviations`. A run's grid and solver decide, so they are computed when it begins.

    Args:
        weight: of the noise that is left, ≥ 0.
        spectrum: of the data, as `Spectrum.rows`; none for that of images in general.
        source: the hub repository that the spectrum's file came from, with the commit.

    Raises:
        InputError: for a weight that is none, or a spectrum that cannot be.

    Example:
        >>> import torch
        >>> policy = SpectralDeviation().for_run(torch.linspace(1, 0, 5), "euler")
        >>> [round(deviation, 2) for deviation in policy.deviations]
        [0.63, 0.65, 0.17]
    """

    weight: float = WEIGHT
    spectrum: Rows = ()
    source: str | None = None

    name: ClassVar[str] = "spectral"
    bound: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight)
        rows = tuple(tuple(float(value) for value in row) for row in self.spectrum)
        if any(len(row) != 3 or not all(value >= 0 for value in row) for row in rows):
            raise InputError(
                "a spectrum has a frequency, a size and a share in each row, from 0 on"
            )
        object.__setattr__(self, "spectrum", rows)  # which a record has as lists

    def to_dict(self) -> dict[str, Any]:
        rows = {"spectrum": [list(row) for row in self.spectrum]} if self.spectrum else {}
        source = {} if self.source is None else {"source": self.source}
        return {"name": self.name, "weight": self.weight, **rows, **source}

    def for_run(self, sigmas: Tensor, solver: str) -> Policy:
        """The schedule for the evaluations at `sigmas` [evaluations + 1] of a solver."""
        grid = tuple(sigmas.tolist())
        deviations = optimal_deviations(grid, solver, self.weight, self.spectrum)
        return ScheduledDeviation(deviations) if deviations else self

    def __call__(self, state: StepState) -> Tensor:
        raise AsyncDiffError("a spectral schedule is made for a run: ask what `for_run` gives")


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a run is in it, or without gradients
@torch.enable_grad()
def optimal_deviations(
    sigmas: tuple[float, ...],
    solver: str = "euler",
    weight: float = WEIGHT,
    rows: Rows = (),
) -> tuple[float, ...]:
    """Find D_1 … in [−1, 1] of least error on Gaussian data with the spectrum of images.

    The error of a component is the size it comes out with less s, squared; the objective is its
    mean over the spectrum, plus `weight` times that of s = `FAINT`, plus a little for jumps
    (`ROUGHNESS`). s = 0 would not do: a last evaluation that is told its own time clears it, and
    leaves what is next to it. It is minimised by L-BFGS-B from a few constants, on exact gradients.

    Args:
        sigmas: t of each evaluation and a last 0, as a diffusers scheduler holds them; Heun has
            each time but the first twice, and its deviations there are 0 where it steps.
        solver: as of `transfer`.
        rows: of another spectrum than that of images.

    Returns:
        A deviation for each evaluation but the first, rounded; none for a single one.
    """
    grid = torch.tensor(sigmas, dtype=torch.float64)
    if solver == "heun":
        grid = grid.unique().flip(0)
    if len(grid) < 3:
        return ()
    spectrum = Spectrum.of_rows(rows) if rows else Spectrum.of_images()
    std = torch.cat([spectrum.std, spectrum.std.new_tensor([FAINT])])
    size = ((1 - grid[0]).square() * std.square() + grid[0].square()).sqrt()

    def loss(deviations: Tensor) -> Tensor:
        # Eq. 6 as `desync` has it, but for its exactness at D = 0, where it has no gradient
        told = grid[:-2] + desync.eta(deviations, 1.0) * (grid[1:-1] - grid[:-2])
        told = told.clamp(min=desync.SIGMA_MIN, max=float(grid[0]))
        came = size * transfer(grid, torch.cat([grid[:1], told]), std, solver)
        return spectrum.error(came[:-1]) + weight * (came[-1] - FAINT).square()

    cost = ROUGHNESS * float(loss(torch.zeros(len(grid) - 2, dtype=torch.float64)))

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        deviations = torch.tensor(values, requires_grad=True)
        jumps = deviations.diff().square().mean() if len(values) > 1 else 0.0
        total = loss(deviations) + cost * jumps
        total.backward()
        assert deviations.grad is not None
        return total.item(), deviations.grad.numpy()

    bounds = [(-1.0, 1.0)] * (len(grid) - 2)
    ends = [
        minimize(objective, np.full(len(bounds), start), jac=True, method="L-BFGS-B", bounds=bounds)
        for start in STARTS
    ]
    best = min(ends, key=lambda end: end.fun).x
    best = best.round(DEVIATION_DECIMALS) + 0.0  # a zero without its sign
    if len(sigmas) > len(grid):
        best = np.stack([best, np.zeros_like(best)], axis=1).reshape(-1)
    return tuple(best.tolist())
