"""What each decision of a trajectory is credited with, as pure functions of rewards.

S counts the decisions. By default all of a trajectory's have its reward (Eq. 14), and nothing of
this is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asyncdiff_cli.engine.backbones.registry import evaluations
from asyncdiff_cli.engine.training.recipe import Recipe


def returns(rewards: Tensor, decay: float) -> Tensor:
    """Σ_{j ≥ k} decay^{j−k}·(R(x̂0_j) − R(x̂0_{j−1})) of decision k = 1 … S, [S, …].

    Decision k chooses what evaluation k is told, so x̂0_k is the first preview that it has a part
    in, and the rise of the reward its gain (Stepwise-Flow-GRPO, arXiv 2603.28718, whose credit is
    the gain alone, decay 0). With more of the later gains it is generalised advantage estimation
    (arXiv 1506.02438) with the preview's reward as the value of where a decision is made: decay 1
    credits it with all that the image has over that preview, which leaves the policy gradient
    unbiased.

    Args:
        rewards: of x̂0_0, …, x̂0_{S−1} and the image, [S + 1, …].
        decay: in [0, 1].
    """
    gains = rewards.diff(dim=0)
    credit = [gains[-1]]
    for gain in gains[:-1].flip(0):
        credit.append(gain + decay * credit[-1])
    return torch.stack(credit).flip(0)


def credited(
    scores: Mapping[str, Tensor],
    previews: Sequence[Mapping[str, Tensor]],
    decay: float | None,
    decisions: int,
) -> list[dict[str, Tensor]]:
    """What each decision has of each reward, [N] of the images' scores [N].

    Args:
        previews: the scores of x̂0 at each decision.
        decay: as of `returns`; None for the image's reward, in which no preview has a part.
    """
    if decay is None:
        return [dict(scores)] * decisions
    by_reward = {
        name: returns(torch.stack([s[name].double() for s in (*previews, scores)]), decay)
        for name in scores
    }
    return [{name: own[k] for name, own in by_reward.items()} for k in range(len(previews))]


@dataclass(frozen=True)
class Branching:
    """Which decisions the images of a group have in common, and what they are compared with.

    So many neighbours, as there are branches, share a prefix, which is theirs alone. A shared
    decision is worth the mean reward of its images, beside other prefixes'; a later one its image's
    reward, beside those of the same prefix (as TreeGRPO, arXiv 2512.08153, and BranchGRPO,
    2509.06040, which branch more than once and normalise by depth).

    Attributes:
        branches: images of a prefix; 1 for none.
        decisions: S.
        prefix: how many of them are shared.
    """

    branches: int
    decisions: int
    prefix: int

    @classmethod
    def of(cls, recipe: Recipe, steps: int) -> Branching:
        """Make the branching of a run of K steps."""
        own, decisions = recipe.estimator, evaluations(recipe.scheduler, steps) - 1
        if own.branches == 1:
            return cls(1, decisions, prefix=0)
        prefix = min(max(round(own.branch_at * decisions), 1), decisions - 1)
        return cls(own.branches, decisions, prefix)

    def values(self, rewards: Tensor) -> Tensor:
        """What each decision was worth, [S, groups, size] of the rewards of the images."""
        shared = rewards[: self.prefix].unflatten(-1, (-1, self.branches)).mean(-1)
        return torch.cat([shared.repeat_interleave(self.branches, -1), rewards[self.prefix :]])

    def baseline(self, baseline: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """What the values are compared with, [S, groups, size], by one of `BASELINES`."""
        if self.branches == 1:
            return torch.stack([baseline(of_one).expand_as(of_one) for of_one in values])
        prefixes = values[: self.prefix, :, :: self.branches]
        shared = baseline(prefixes).expand_as(prefixes).repeat_interleave(self.branches, -1)
        siblings = values[self.prefix :].unflatten(-1, (-1, self.branches))
        return torch.cat([shared, baseline(siblings).expand_as(siblings).flatten(-2)])
