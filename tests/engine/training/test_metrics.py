"""The numbers of an iteration, worked out by hand."""

import pytest
import torch

from asyncdiff_cli.engine.training.metrics import (
    flat,
    policy_metrics,
    reward_metrics,
    update_metrics,
)
from asyncdiff_cli.engine.training.update import UpdateSums


def test_a_rewards_deviation_is_the_mean_of_the_groups():
    scores = {"clip": torch.tensor([0.0, 10.0, 2.0, 14.0])}
    groups = torch.tensor([[0, 2], [1, 3]])  # deviations 1 and 2
    assert reward_metrics(scores, groups, {}) == {"clip": {"raw": 6.5, "std": 1.5}}


def test_a_rewards_z_is_in_units_of_the_baseline():
    baseline = {"clip": torch.tensor([1.0, 3.0])}
    scores = {"clip": torch.tensor([4.0, 4.0])}
    found = reward_metrics(scores, torch.tensor([[0, 1]]), baseline)
    assert found["clip"]["z"] == pytest.approx(2.0)


def test_the_policys_numbers_are_means_over_all_trajectories():
    records = [
        {"deviations": [d, 0.5], "alpha": [a, 2.0], "beta": [2.0, 2.0], "entropy": e, "scales": []}
        for d, a, e in ((0.0, 2.0, -0.5), (1.0, 4.0, -1.5))
    ]
    assert policy_metrics(records) == {
        "deviation": {"mean": [0.5, 0.5], "std": [0.5, 0.0]},
        "alpha": [3.0, 2.0],
        "beta": [2.0, 2.0],
        "entropy": -1.0,
    }
    scaling = [
        {**record, "scales": [own, 1.0]} for record, own in zip(records, (0.5, 1.5), strict=True)
    ]
    assert policy_metrics(scaling)["scale"] == {"mean": [1.0, 1.0], "std": [0.5, 0.0]}


def test_sums_of_processes_become_means_over_all_trajectories():
    parts = [UpdateSums(3, 0.6, 1, 0.5), UpdateSums(1, 0.2, 0, 0.5)]
    assert update_metrics(parts) == {
        "approximate_kl": pytest.approx(0.2), "clip_fraction": 0.25, "grad_norm": 0.5
    }  # fmt: skip


def test_trackers_get_every_number_by_its_place():
    row = {"iteration": 3, "rewards": {"clip": {"raw": 0.5}}, "alpha": [2.0, 2.5], "warning": "no"}
    assert flat(row) == {"iteration": 3, "rewards/clip/raw": 0.5, "alpha/0": 2.0, "alpha/1": 2.5}
