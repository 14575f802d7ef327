"""Group-relative policy optimisation over whole trajectories (AsyncDiff, Eq. 14 to 16; Shao et al.,
2024), as pure functions of tensors.

S counts the decisions of a trajectory, K − 1 for K steps, each as often as it has actions; B the
trajectories. An action's Beta is given by α − 1 and β − 1, both above 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, kl_divergence

from asyncdiff_cli.engine.training.baselines import group_mean

EPSILON = 1e-6
"""Added to the standard deviation of a group's rewards: a group of equals has no advantage."""


def advantages(
    rewards: Tensor,
    shared_scale: bool = False,
    baseline: Callable[[Tensor], Tensor] = group_mean,
) -> Tensor:
    """Â = (R − mean R)/(std R + ε) within each group, […, groups, size] of the same.

    The deviation is that of N. What is left of equal rewards by rounding counts as 0.

    Args:
        shared_scale: divide by the deviation over everything, so that a group whose images hardly
            differ does not count as much as one whose images do.
        baseline: what is subtracted in place of mean R, one of `BASELINES`.
    """
    within = rewards - group_mean(rewards)
    deviation = within.square().mean(None if shared_scale else -1, keepdim=True).sqrt()
    centred = rewards - baseline(rewards)
    return torch.where(deviation > EPSILON, centred / (deviation + EPSILON), 0.0)


def beta(alpha_excess: Tensor, beta_excess: Tensor) -> Beta:
    """The distributions of the ratios, fp64: a sum over steps must not drown in rounding."""
    return Beta(1 + alpha_excess.double(), 1 + beta_excess.double())


def log_prob(
    alpha_excess: Tensor, beta_excess: Tensor, ratio: Tensor, decisions: int | None = None
) -> Tensor:
    """log π(τ), fp64 [B]: the sum of a trajectory's S log-densities (Eq. 15). All are [S, B].

    Args:
        decisions: how many to tell apart, [decisions, B], each the sum over its actions.
    """
    return _summed(beta(alpha_excess, beta_excess).log_prob(ratio.double()), decisions)


def _summed(terms: Tensor, decisions: int | None) -> Tensor:
    """The sum of terms [S, B] over a trajectory, [B], or over each decision's actions."""
    return terms.sum(0) if decisions is None else terms.unflatten(0, (decisions, -1)).sum(1)


def normalized_log_ratio(
    new: Beta, old: Beta, ratio: Tensor, decisions: int | None = None
) -> Tensor:
    """Σ_k σ_k·(log π_k/π_old,k + KL(π_old,k ‖ π_k)) of trajectories, fp64 [B].

    RatioNorm (GRPO-Guard, arXiv 2510.22319) for Betas. A log-ratio has the mean −KL over draws of
    the old policy, which keeps clipping from what it should clip, and one of a narrow Beta moves
    more than one of a wide one. Here σ_k is the standard deviation of the old Beta. It follows
    summaries and implementations of the paper, without its text at hand.

    Args:
        new, old: the Betas of all decisions, [S, B].
        ratio: as drawn, [S, B].
        decisions: as of `log_prob`.
    """
    log_ratio = new.log_prob(ratio.double()) - old.log_prob(ratio.double())
    return _summed(old.stddev * (log_ratio + kl_divergence(old, new)), decisions)


def grid_log_prob(alpha: Tensor, shares: Tensor) -> Tensor:
    """log of the Dirichlet density of shares [B, n] under α [B, n], fp64 [B]."""
    return Dirichlet(alpha.double()).log_prob(shares.double())


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> Tensor:
    """min(r·Â, clip(r, 1 ± ε)·Â) with one ratio r = π/π_old per trajectory (Eq. 14), [B].

    Where decisions have a credit of their own all is [S, B], with one ratio per decision.
    """
    ratio = (log_prob - old_log_prob).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantage, clipped * advantage)


def is_clipped(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> Tensor:
    """The trajectories that pass no gradient, because they went as far as they may, bool [B]."""
    ratio = (log_prob - old_log_prob).exp()
    return torch.where(advantage > 0, ratio > 1 + clip_range, ratio < 1 - clip_range)


def approximate_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """KL(π_old ‖ π) of trajectories by the estimate r − 1 − log r ≥ 0 (Schulman, 2020), [B]."""
    difference = log_prob - old_log_prob
    return difference.expm1() - difference


def kl_to_initial(alpha_excess: Tensor, beta_excess: Tensor) -> Tensor:
    """KL(π ‖ π_0) per decision, [S, B]: an untrained module answers Beta(2, 2) everywhere."""
    now = beta(alpha_excess, beta_excess)
    ones = torch.ones_like(now.concentration1)
    return kl_divergence(now, Beta(2 * ones, 2 * ones))


def entropy(alpha_excess: Tensor, beta_excess: Tensor) -> Tensor:
    """Differential entropy per decision, [S, B]; at most 0, and 0 for the uniform distribution."""
    return beta(alpha_excess, beta_excess).entropy()
