"""What a trajectory's reward is compared with, as pure functions of rewards [groups, size].

A baseline that does not depend on the trajectory's own reward leaves the policy gradient's mean as
it is, whatever it is; a good one takes away variance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from asyncdiff_cli.engine.training.recipe import LEAST_GROUPS


def group_mean(rewards: Tensor) -> Tensor:
    """The mean of the group (Eq. 16), [groups, 1]."""
    return rewards.mean(-1, keepdim=True)


def leave_one_out(rewards: Tensor) -> Tensor:
    """The mean of the others of the group (RLOO; Kool et al., 2019; arXiv 2402.14740).

    What is left of a reward is n/(n − 1) times what `group_mean` leaves.

    Returns:
        [groups, size].
    """
    size = rewards.shape[-1]
    return (rewards.sum(-1, keepdim=True) - rewards) / (size - 1)


def james_stein(rewards: Tensor) -> Tensor:
    """The mean of the others of the group, shrunk toward the mean of the other groups.

    By the positive part of James and Stein's estimate: λ = min(1, (G − 3)·s²/Σ_h (m_h − m)²) of the
    way, with G other groups of means m_h around m, and s² the variance of such a mean. All of it
    leaves out the trajectory's own reward, so that the gradient stays unbiased. Such baselines are
    of arXiv 2511.22177 and 2511.03710, whose own constants may differ.

    Returns:
        [groups, size]; `leave_one_out` for less than `LEAST_GROUPS` groups.
    """
    own = leave_one_out(rewards)
    groups, size = rewards.shape
    if groups < LEAST_GROUPS:
        return own
    means, variances = rewards.mean(-1), rewards.var(-1) / size
    shrunk = []
    for group in range(groups):
        others = torch.arange(groups) != group
        centre, scatter = means[others].mean(), means[others].var() * (groups - 2)
        noise = (groups - 4) * variances[others].mean()
        share = (noise / scatter).clamp(max=1) if scatter > 0 else torch.ones_like(noise)
        shrunk.append(torch.lerp(own[group], centre.expand(size), share))
    return torch.stack(shrunk)


BASELINES: dict[str, Callable[[Tensor], Tensor]] = {
    "group": group_mean,
    "leave_one_out": leave_one_out,
    "james_stein": james_stein,
}
"""The baselines by the names that recipes give them."""
