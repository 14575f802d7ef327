"""The numbers that a training reports of an iteration, from what its processes saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypedDict

from asyncdiff_cli.engine.rewards.composite import relative_composite
from asyncdiff_cli.engine.training.rollout import Rollout
from asyncdiff_cli.engine.training.rows import (
    ByStep,
    PolicyMetrics,
    RewardMetrics,
    ScaleMetric,
    UpdateMetrics,
)
from asyncdiff_cli.engine.training.update import Decided, UpdateSums


class TrajectoryRecord(TypedDict):
    """What the other processes need to know of a trajectory."""

    index: int
    scores: dict[str, float]
    previews: list[dict[str, float]]
    """The scores of x̂0 at each decision; empty unless decisions are credited by them."""
    deviations: list[float]
    """D of each decision, [K − 1]; so are α and β."""
    alpha: list[float]
    beta: list[float]
    entropy: float
    scales: list[float]
    """ω of each decision; empty for a module that leaves velocities alone."""


def trajectory_records(
    rollout: Rollout,
    old: Decided,
    scores: Mapping[str, Tensor],
    previews: Sequence[Mapping[str, Tensor]] = (),
) -> list[TrajectoryRecord]:
    """The records of this process's trajectories.

    Args:
        scores: by reward, [B].
        previews: those of x̂0 at each decision.
    """
    return [
        {
            "index": trajectory.index,
            "scores": _scores_at(place, scores),
            "previews": [_scores_at(place, stage) for stage in previews],
            "deviations": rollout.deviations[place].tolist(),
            "alpha": old.alpha[place].tolist(),
            "beta": old.beta[place].tolist(),
            "entropy": float(old.entropy[place]),
            "scales": rollout.scales[place].tolist(),
        }
        for place, trajectory in enumerate(rollout.trajectories)
    ]


def _scores_at(place: int, scores: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(values[place]) for name, values in scores.items()}


def gathered(scores: Sequence[Mapping[str, float]], names: Iterable[str]) -> dict[str, Tensor]:
    """The scores of all trajectories, one mapping each, by the rewards' names: [N]."""
    return {name: torch.tensor([own[name] for own in scores]) for name in names}


def reward_metrics(
    scores: Mapping[str, Tensor], groups: Tensor, baseline: Mapping[str, Tensor]
) -> dict[str, RewardMetrics]:
    """The rewards of an iteration.

    Args:
        scores: by reward, [N].
        groups: the places of each group's trajectories in them, [groups, size].
        baseline: the synchronous sampler's held-out scores by reward; without them there is no z.
    """
    metrics: dict[str, RewardMetrics] = {
        name: {
            "raw": float(values.mean()),
            "std": float(values[groups].std(1, correction=0).mean()),
        }
        for name, values in scores.items()
    }
    if baseline:
        for name, values in scores.items():
            z = relative_composite({name: values}, baseline, {name: 1.0})
            metrics[name]["z"] = float(z.mean())
    return metrics


def policy_metrics(records: Sequence[TrajectoryRecord]) -> PolicyMetrics:
    """How the module decided in an iteration, over all processes' trajectories."""
    drawn = torch.tensor([record["deviations"] for record in records])
    scales = torch.tensor([record["scales"] for record in records])
    of_scales: ScaleMetric = {"scale": _by_step(scales)} if scales.numel() else {}
    return {
        "deviation": _by_step(drawn),
        **of_scales,
        "alpha": torch.tensor([record["alpha"] for record in records]).mean(0).tolist(),
        "beta": torch.tensor([record["beta"] for record in records]).mean(0).tolist(),
        "entropy": sum(record["entropy"] for record in records) / len(records),
    }


def _by_step(values: Tensor) -> ByStep:
    """Mean and deviation over the trajectories, of [N, K − 1]."""
    return {"mean": values.mean(0).tolist(), "std": values.std(0, correction=0).tolist()}


def update_metrics(parts: Sequence[UpdateSums]) -> UpdateMetrics:
    """How far an iteration moved the module, from the sums of each process."""
    trajectories = sum(part.trajectories for part in parts)
    return {
        "approximate_kl": sum(part.approximate_kl for part in parts) / trajectories,
        "clip_fraction": sum(part.clipped for part in parts) / trajectories,
        "grad_norm": max(part.grad_norm for part in parts),
    }


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested JSON values, as trackers take them: `rewards/clip/raw`."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, list):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            numbers[prefix + name] = value
    return numbers
