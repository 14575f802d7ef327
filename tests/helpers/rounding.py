"""How far apart other kernels may bring the same numbers: in another batch, with padding, fused
or compiled, on another processor.

Only the same operations on the same shapes give the same bits. Elsewhere sums are added in
another order, and that is all that may differ.
"""

from __future__ import annotations

import math

import torch

LAMBDA = 8
"""A sum is outside the bound below with a probability of 2·exp(−λ²/2) = 3e-14."""


def rounding(terms: int, dtype: torch.dtype = torch.float32) -> float:
    """Bound the relative difference of two sums of the same terms, added in any two orders.

    Either is off by at most λ·√n·u, u being half the distance from 1 to the next number (Higham
    and Mary 2019, "A new approach to probabilistic rounding error analysis", theorem 2.4). Sums
    of sums, as in layers that follow one another, count all their terms.
    """
    return LAMBDA * math.sqrt(terms) * torch.finfo(dtype).eps


def terms(*modules: torch.nn.Module) -> int:
    """Count what is added up on the way through some modules: the fan-in of every weight."""
    return sum(p[0].numel() for m in modules for p in m.parameters() if p.ndim > 1)


def assert_rounded(ours: torch.Tensor, theirs: torch.Tensor, terms: int) -> None:
    """Both are the same but for rounding, as seen from the largest of the values, or from 1."""
    scale = max(1.0, float(theirs.detach().abs().max()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=scale * rounding(terms, theirs.dtype))
