"""One iteration's update of the module: mini-batches of whole trajectories, over all processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.policies.own_grid import concentration
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.rollout import Rollout


@dataclass(frozen=True)
class Decided:
    """How the module that drew the rollout decided, per trajectory of this process."""

    log_probs: Tensor
    """fp64 [B]; of each decision, [S, B], where these have a credit of their own."""
    alpha: Tensor
    """α of each action of each decision, [B, S·A]; so is beta."""
    beta: Tensor
    entropy: Tensor
    """Mean over these, [B]."""


@dataclass
class UpdateSums:
    """Sums over what this process saw in the update; they add up over processes."""

    trajectories: int = 0
    approximate_kl: float = 0.0
    clipped: float = 0
    """Trajectories that pass no gradient; one of which some decisions pass none counts in part."""
    grad_norm: float = 0.0
    """The largest before clipping, the same in each process."""


def minibatches(indices: Sequence[int], total: int, size: int) -> list[list[int]]:
    """The places in `indices` of each of the total/size mini-batches of consecutive indices.

    A process holds some of the indices, so its part of a mini-batch may be small or empty.
    """
    parts: list[list[int]] = [[] for _ in range(total // size)]
    for place, index in enumerate(indices):
        parts[index // size].append(place)
    return parts


@torch.no_grad()
def decided(
    tpm: TimestepPredictionModule,
    rollout: Rollout,
    parts: Sequence[Sequence[int]],
    by_decision: bool = False,
) -> Decided:
    """What the module says before the update, in the mini-batches of the update.

    In these very batches, and not as the sampler asked: only so do the same weights return the same
    bits, and the first ratio π/π_old is exactly 1.
    """
    count = rollout.ratios.shape[1]
    decisions = rollout.deviations.shape[1] if by_decision else None
    shape = (count,) if decisions is None else (decisions, count)
    log_probs = torch.zeros(shape, dtype=torch.float64, device=tpm.device)
    alphas, betas, entropies = torch.zeros(3, count, len(rollout.ratios), device=tpm.device)
    for places in filter(None, parts):
        assert rollout.seen is not None  # there are places
        a, b = tpm(rollout.seen.select(places))
        log_probs[..., places] = _log_prob(tpm, rollout, places, a, b, decisions)
        alphas[places], betas[places] = 1 + a.T, 1 + b.T
        entropies[places] = grpo.entropy(a, b).T.float()
    return Decided(log_probs, alphas.cpu(), betas.cpu(), entropies.mean(1).cpu())


def _log_prob(
    tpm: TimestepPredictionModule,
    rollout: Rollout,
    places: Sequence[int],
    alpha_excess: Tensor,
    beta_excess: Tensor,
    decisions: int | None,
) -> Tensor:
    """`grpo.log_prob` of some trajectories, to whose first decision a grid belongs."""
    log_prob = grpo.log_prob(alpha_excess, beta_excess, rollout.ratios[:, places], decisions)
    if not rollout.shares.numel():
        return log_prob
    assert rollout.seen is not None  # there are places
    lengths = tpm.lengths(rollout.seen.select(places), rollout.sigmas)
    alpha = concentration(lengths, rollout.sigmas)
    own = grpo.grid_log_prob(alpha, rollout.shares[places])
    return log_prob + own if decisions is None else torch.cat([log_prob[:1] + own, log_prob[1:]])


def update(
    tpm: TimestepPredictionModule,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    old: Decided,
    parts: Sequence[Sequence[int]],
    advantages: Tensor,
    recipe: Recipe,
    accelerator: Any,
) -> UpdateSums:
    """Take a step per mini-batch and epoch. Gradients are summed over the processes.

    Args:
        advantages: Â of this process's trajectories, fp64 [B], or of their decisions, [S, B].

    Raises:
        AsyncDiffError: for a gradient that is NaN or infinite, before it is applied.
    """
    sums = UpdateSums()
    advantages = advantages.to(tpm.device)
    for _ in range(recipe.epochs):
        for places in parts:
            optimizer.zero_grad(set_to_none=False)
            if places:
                _backward(tpm, rollout, list(places), old, advantages, recipe, sums)
            _share_gradients(tpm, accelerator)
            norm = float(nn.utils.clip_grad_norm_(tpm.parameters(), recipe.max_grad_norm))
            if not math.isfinite(norm):
                raise AsyncDiffError(
                    f"the gradient's norm is {norm}; try a lower learning_rate or an entropy_weight"
                )
            sums.grad_norm = max(sums.grad_norm, norm)
            optimizer.step()
    return sums


def _backward(
    tpm: TimestepPredictionModule,
    rollout: Rollout,
    places: list[int],
    old: Decided,
    advantages: Tensor,
    recipe: Recipe,
    sums: UpdateSums,
) -> None:
    """Add this process's part of a mini-batch to the gradients (Eq. 14)."""
    assert rollout.seen is not None  # there are places
    a, b = tpm(rollout.seen.select(places))
    decisions = rollout.deviations.shape[1] if recipe.estimator.by_decision else None
    now = _log_prob(tpm, rollout, places, a, b, decisions)
    before, advantage = old.log_probs[..., places], advantages[..., places]
    log_probs = now, before
    if recipe.estimator.ratio_norm:
        excesses = (values[places].T.to(a.device) - 1 for values in (old.alpha, old.beta))
        log_ratio = grpo.normalized_log_ratio(
            grpo.beta(a, b), grpo.beta(*excesses), rollout.ratios[:, places], decisions
        )
        log_probs = log_ratio, torch.zeros_like(log_ratio)
    gain = grpo.clipped_surrogate(*log_probs, advantage, recipe.clip_range)
    if decisions is not None:
        gain = gain.sum(0)
    if recipe.kl_weight:
        gain = gain - recipe.kl_weight * grpo.kl_to_initial(a, b).mean(0)
    if recipe.entropy_weight:
        gain = gain + recipe.entropy_weight * grpo.entropy(a, b).mean(0)
    (-gain.sum() / recipe.mini_batch_size).backward()
    with torch.no_grad():
        sums.trajectories += len(places)
        sums.approximate_kl += float(grpo.approximate_kl(now, before).sum())
        clipped = grpo.is_clipped(*log_probs, advantage, recipe.clip_range)
        sums.clipped += float(clipped.sum()) * len(places) / clipped.numel()


def _share_gradients(tpm: TimestepPredictionModule, accelerator: Any) -> None:
    """Every process gets the sum of all processes' gradients."""
    for parameter in tpm.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in tpm.parameters() if p.grad is not None]
    if accelerator.num_processes == 1:
        return
    flat = nn.utils.parameters_to_vector(gradients).cpu()  # some 20 MB, which gloo adds up
    nn.utils.vector_to_parameters(accelerator.reduce(flat, "sum").to(tpm.device), gradients)
