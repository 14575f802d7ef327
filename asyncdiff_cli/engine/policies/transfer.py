"""What a sampler makes of Gaussian data, of which everything is known in closed form.

Let the data be Gaussian with independent components, one per frequency, of standard deviation s.
On x_t = (1 − t)·x0 + t·ε the exact velocity is linear, v(x, t) = c(t; s)·x, and the exact flow
multiplies a component of the noise by s. A sampler multiplies it by a number too, its transfer
function, which tells what it loses or adds at each scale of detail without drawing anything.

Benita, Elad and Keshet (arXiv 2502.00180) do the same for the grid; here the time that the
denoiser is told is apart from it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import InputError


def velocity_coefficient(time: Tensor, std: Tensor) -> Tensor:
    """c(t; s) = (t − (1 − t)·s²) / ((1 − t)²·s² + t²) of the exact velocity c·x.

    Args:
        time, std: t in (0, 1] and s ≥ 0, of shapes that broadcast.
    """
    power = std.square()
    return (time - (1 - time) * power) / ((1 - time).square() * power + time.square())


def transfer(
    sigmas: Tensor,
    cond_sigmas: Tensor,
    std: Tensor,
    solver: str = "euler",
    velocity_scale: Tensor | None = None,
    latent_scale: Tensor | None = None,
) -> Tensor:
    """Compute the factor that a run multiplies each component of the noise by; the exact is `std`.

    The solvers are diffusers' at their defaults: DPM-Solver++(2M) by midpoints (arXiv 2211.01095)
    and UniPC-2 with B₂(h) (arXiv 2302.04867), both with a last step of first order.

    Args:
        sigmas: the grid, [K + 1], from at most 1 down to 0. A multistep solver's first step is
            taken to its limit where the grid begins at 1, at which log-SNR is infinite; diffusers
            begins at 1 − 1e-6.
        cond_sigmas: t*_k, the times that the denoiser is told, [K], in (0, 1]. For "heun" those of
            the second evaluations, of which there is one at each time but the first, where it is
            the only one; or all, [2·K − 1], in their order.
        std: s ≥ 0, [n].
        solver: "euler", "heun", "dpmpp" or "unipc".
        velocity_scale: what each evaluation's velocity is multiplied by, as `cond_sigmas`;
            default 1.
        latent_scale: what multiple of the latents is then added to it, as `cond_sigmas`; default 0.

    Returns:
        [n], in the dtype of `std`, computed in fp64.

    Raises:
        InputError: for an unknown solver, or times of a wrong shape or range.

    Example:
        >>> import torch
        >>> grid = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
        >>> transfer(grid, grid[:-1], torch.tensor([1.0, 0.1]))
        tensor([0.7200, 0.0281])
    """
    check_choice("solver", solver, SOLVERS)
    grid, told = sigmas.double(), cond_sigmas.double()
    _check_times(grid, told, solver)
    coefficients = velocity_coefficient(told[:, None], std.double())
    if velocity_scale is not None:
        coefficients = coefficients * velocity_scale.double()[:, None]
    if latent_scale is not None:
        coefficients = coefficients + latent_scale.double()[:, None]
    if solver == "heun" and len(told) == len(grid) - 1:
        coefficients = _with_first_evaluations(grid, coefficients, std.double())
    return SOLVERS[solver](grid, coefficients).to(std.dtype)


def _check_times(grid: Tensor, told: Tensor, solver: str) -> None:
    if grid.ndim != 1 or len(grid) < 2 or grid[-1] != 0 or grid[0] > 1 or (grid.diff() >= 0).any():
        raise InputError("sigmas must fall from at most 1 to 0, in one dimension")
    steps = len(grid) - 1
    lengths = (steps, 2 * steps - 1) if solver == "heun" else (steps,)
    if told.ndim != 1 or len(told) not in lengths:
        raise InputError(f"{steps} steps of {solver} need {lengths[-1]} cond_sigmas")
    if not ((told > 0) & (told <= 1)).all():
        raise InputError("cond_sigmas must be in (0, 1]")


def _with_first_evaluations(grid: Tensor, coefficients: Tensor, std: Tensor) -> Tensor:
    """All of Heun's evaluations, [2·K − 1, n]: each step's first is told the grid's time."""
    first = velocity_coefficient(grid[1:-1, None], std)
    pairs = torch.stack([coefficients[1:], first], dim=1)
    return torch.cat([coefficients[:1], pairs.flatten(0, 1)])


def _euler(grid: Tensor, coefficients: Tensor) -> Tensor:
    """Π_k (1 + (t_{k+1} − t_k)·c_k)."""
    return (1 + grid.diff()[:, None] * coefficients).prod(0)


def _heun(grid: Tensor, coefficients: Tensor) -> Tensor:
    """The trapezoid rule for all steps but the last, which is Euler's."""
    factor = torch.ones_like(coefficients[0])
    first, second = coefficients[::2], coefficients[1::2]
    for k, interval in enumerate(grid.diff()):
        slope = first[k]
        if k < len(second):
            slope = (slope + second[k] * (1 + interval * slope)) / 2
        factor = factor * (1 + interval * slope)
    return factor


def _dpmpp(grid: Tensor, coefficients: Tensor) -> Tensor:
    """DPM-Solver++(2M), data prediction, midpoint."""
    return _multistep(grid, coefficients, corrects=False)


def _unipc(grid: Tensor, coefficients: Tensor) -> Tensor:
    """UniP-2, which is DPM-Solver++(2M), with each step corrected by UniC."""
    return _multistep(grid, coefficients, corrects=True)


def _multistep(grid: Tensor, coefficients: Tensor, corrects: bool) -> Tensor:
    """A run of second order by the last evaluation's x̂0; its first and last step are of first."""
    x = before = torch.ones_like(coefficients[0])
    clean, log_snr = [], _log_snr(grid)
    for k, c in enumerate(coefficients):
        clean.append((1 - grid[k] * c) * x)
        if corrects and k > 0:
            x = _stepped(before, clean[k - 1] + _correction(clean, log_snr, k), grid, log_snr, k)
        ahead, before = clean[k], x
        if 0 < k < len(coefficients) - 1:
            slope = (clean[k] - clean[k - 1]) / (log_snr[k] - log_snr[k - 1])
            ahead = ahead + slope * (log_snr[k + 1] - log_snr[k]) / 2
        x = _stepped(before, ahead, grid, log_snr, k + 1)
    return x


def _stepped(x: Tensor, clean: Tensor, grid: Tensor, log_snr: Tensor, k: int) -> Tensor:
    """x at t_k from x at t_{k−1} if x̂0 is `clean` all along, in closed form."""
    decay = torch.expm1(log_snr[k - 1] - log_snr[k])
    return grid[k] / grid[k - 1] * x - (1 - grid[k]) * decay * clean


def _correction(clean: list[Tensor], log_snr: Tensor, k: int) -> Tensor:
    """What UniC adds to x̂0_{k−1} on the step to t_k, once x̂0_k is known (UniPC, Eq. 5, 9)."""
    difference = clean[k] - clean[k - 1]
    if k == 1:
        return difference / 2
    h = log_snr[k] - log_snr[k - 1]
    before = (log_snr[k - 2] - log_snr[k - 1]) / h
    decay = torch.expm1(-h)
    b1 = -1 / h - 1 / decay
    b2 = 2 * (1 / h + 1 / decay) / h - 1 / decay
    weight = (b1 - b2) / (1 - before)
    slope = (clean[k - 2] - clean[k - 1]) / before
    return weight * slope + (b1 - weight) * difference


def _log_snr(grid: Tensor) -> Tensor:
    """λ = log((1 − t)/t), [K + 1]: −∞ at t = 1, ∞ at 0."""
    return torch.log1p(-grid) - torch.log(grid)


SOLVERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "euler": _euler,
    "heun": _heun,
    "dpmpp": _dpmpp,
    "unipc": _unipc,
}
"""(grid [K + 1], coefficients [evaluations, n]) to the factors [n], fp64."""
