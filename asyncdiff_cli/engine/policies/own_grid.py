"""Steps of an image's own lengths, drawn with a scheduler whose grid is everyone's.

A step of Euler's is its length times the velocity. So a step of another length is the scheduler's
own with a longer or shorter velocity, and the images of a batch may each have a grid of their own.
The first step stays the scheduler's: it is taken before anything is decided.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.base import StepState


def shares_of(sigmas: Tensor) -> Tensor:
    """The shares of the scheduler's steps but the first in the way that these go, fp64 [K − 1].

    Args:
        sigmas: t_0 … t_K, [K + 1].
    """
    lengths = -sigmas[1:].double().diff()
    return lengths / lengths.sum()


def tilted(shares: Tensor, factors: Tensor) -> Tensor:
    """Shares in proportion to shares·factors, fp64: the same where all factors are equal.

    Args:
        shares: [K − 1]; factors: above 0, [B, K − 1].
    """
    weighted = shares * factors.double()
    return weighted / weighted.sum(-1, keepdim=True)


def concentration(lengths: Tensor, sigmas: Tensor) -> Tensor:
    """α of the Dirichlet over the shares of the steps but the first, fp64 [B, K − 1], above 1.

    α − 1 is n times the scheduler's shares, each times its length: the mode is `tilted`, and of two
    equal steps it is the Beta(2, 2) of other actions.

    Args:
        lengths: what a module weighs the shares with, [B, K − 1].
        sigmas: t_0 … t_K, [K + 1].
    """
    shares = shares_of(sigmas)
    return 1 + len(shares) * shares * lengths.double()


def scaled_by_gamma(shares: Tensor, chosen: Tensor, gamma: float) -> Tensor:
    """The chosen shares [B, K − 1], as far from the scheduler's as γ says: at 0 these, at 1 those.

    In between and beyond ratios are raised to the power of γ, so that no step ends before it
    begins.
    """
    return tilted(shares, (chosen / shares).log().mul(gamma).exp())


def times_of(sigmas: Tensor, shares: Tensor) -> Tensor:
    """The times of steps of these shares [B, K − 1], fp64 [B, K + 1], with the scheduler's ends."""
    grid = sigmas.double().expand(len(shares), -1)
    way = grid[:, 1:2] - grid[:, -1:]
    inner = grid[:, 1:2] - way * shares.cumsum(-1)[:, :-1]
    return torch.cat([grid[:, :2], inner, grid[:, -1:]], dim=1)


class GridPolicy(Protocol):
    """A policy that decides the lengths of the steps too."""

    @property
    def bound(self) -> float:
        """See `Policy`."""
        ...

    def choose(self, state: StepState, sigmas: Tensor) -> Tensor:
        """The shares of the steps but the first, after evaluation 0, fp64 [B, K − 1]."""
        ...

    def __call__(self, state: StepState) -> Tensor:
        """See `Policy`."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """See `Policy`."""
        ...

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor | None:
        """See `Policy`."""
        ...


class OwnGrid:
    """A policy in a run of Euler's, each image of which goes by the steps that are chosen for it.

    The policy sees the image's own times and the velocity as the model said it.

    Args:
        policy: who decides.
        sigmas: t of the run's evaluations and a last one that is not evaluated, [K + 1].
        solver: its name.

    Raises:
        InputError: for a solver whose step is not its length times the velocity.
    """

    def __init__(self, policy: GridPolicy, sigmas: Tensor, solver: str) -> None:
        if solver != "euler":
            raise InputError(f"a module that chooses the grid draws with euler, not {solver}")
        self.policy, self.sigmas, self.index = policy, sigmas, 0
        self.shares: Tensor | None = None
        self.times: Tensor | None = None

    @property
    def bound(self) -> float:
        """The policy's bound."""
        return self.policy.bound

    def __call__(self, state: StepState) -> Tensor:
        if state.index == 0:
            self.index, self.times = 0, None
            self.shares = self.policy.choose(state, self.sigmas)
            return self.policy(state)
        sigma, sigma_next = (self._time(state.index + ahead) for ahead in (0, 1))
        stretch = self._stretch().reshape(-1, *[1] * (state.velocity.ndim - 1))
        velocity = (state.velocity / stretch).to(state.velocity.dtype)
        return self.policy(replace(state, sigma=sigma, sigma_next=sigma_next, velocity=velocity))

    def cond_sigma(self, state: StepState, gamma: float, deviation: Tensor) -> Tensor:
        """t*_{k+1} by Eq. 6 on the image's own times, [B]."""
        if self.times is None:
            assert self.shares is not None  # it has just been asked
            shares = scaled_by_gamma(shares_of(self.sigmas), self.shares, gamma)
            self.times = times_of(self.sigmas, shares)
        self.index = state.index + 1
        ends = self._time(state.index), self._time(state.index + 1)
        return desync.next_cond_sigma(*ends, desync.eta(deviation, gamma))

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor | None:
        """How long the image's step is against the scheduler's, times the policy's own, [B]."""
        if self.times is None:
            return None
        scale = self.policy.velocity_scale(sigma, cond_sigma, gamma)
        return self._stretch() if scale is None else self._stretch() * scale

    def to_dict(self) -> dict[str, Any]:
        return self.policy.to_dict()

    def _time(self, index: int) -> Tensor:
        """The image's time at an evaluation, fp32 [B]."""
        assert self.times is not None  # they are chosen with the first decision
        return self.times[:, index].float()

    def _stretch(self) -> Tensor:
        """The length of this evaluation's step against the scheduler's, fp32 [B]."""
        assert self.times is not None
        ends = slice(self.index, self.index + 2)
        own, everyone = self.times[:, ends].diff()[:, 0], self.sigmas[ends].double().diff()
        return (own / everyone).float()
