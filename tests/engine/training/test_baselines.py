"""Baselines against numbers worked out by hand, and that none knows the reward it is for."""

import pytest
import torch

from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.baselines import (
    BASELINES,
    group_mean,
    james_stein,
    leave_one_out,
)
from asyncdiff_cli.engine.training.recipe import BASELINE_NAMES


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_recipes_name_all_there_are():
    assert tuple(BASELINES) == BASELINE_NAMES


def test_the_mean_of_the_group_and_of_the_others_in_it():
    rewards = double([1, 2, 6], [0, 0, 3])
    assert group_mean(rewards).tolist() == [[3], [1]]
    assert leave_one_out(rewards).tolist() == [[4, 3.5, 1.5], [1.5, 1.5, 0]]


def test_leaving_one_out_is_the_group_s_mean_times_a_number():
    """n/(n − 1), which an optimizer that divides by the gradient's size takes out again."""
    rewards = torch.randn(6, 4, generator=torch.manual_seed(0)).double()
    ours = grpo.advantages(rewards, baseline=leave_one_out)
    assert torch.allclose(ours, 4 / 3 * grpo.advantages(rewards))


def test_james_stein_by_hand():
    """The last group's others: means 0, 1, 2, 3 around 1.5 with Σ(m − 1.5)² = 5, each of two
    rewards one apart from it on either side, so that s² = 2/2: λ = (4 − 3)·1/5."""
    rewards = double([-1, 1], [0, 2], [1, 3], [2, 4], [10, 12])
    own, shared = double(12, 10), 1.5
    assert torch.allclose(james_stein(rewards)[-1], own + 0.2 * (shared - own))


def test_james_stein_takes_the_others_mean_where_groups_do_not_differ():
    rewards = double([-1, 1], [-1, 1], [-1, 1], [-1, 1], [5, 9])
    assert james_stein(rewards)[-1].tolist() == [0, 0]
    assert torch.equal(james_stein(rewards[:4]), leave_one_out(rewards[:4]))  # too few to shrink by


@pytest.mark.parametrize("baseline", [leave_one_out, james_stein])
def test_a_baseline_does_not_know_the_reward_it_is_for(baseline):
    """Else the gradient would not be that of the mean reward."""
    rewards = torch.randn(6, 3, generator=torch.manual_seed(0)).double()
    moved = torch.autograd.functional.jacobian(baseline, rewards).reshape(18, 18)
    assert torch.equal(moved.diagonal(), torch.zeros(18).double())
    assert moved.abs().max() > 0.1


def test_james_stein_is_nearer_to_the_true_means():
    """Where groups differ less than their rewards do."""
    generator, apart = torch.manual_seed(0), {"own": 0.0, "shrunk": 0.0}
    for _ in range(200):
        true = 0.3 * torch.randn(16, 1, generator=generator).double()
        rewards = true + torch.randn(16, 4, generator=generator).double()
        apart["own"] += float((leave_one_out(rewards) - true).square().mean())
        apart["shrunk"] += float((james_stein(rewards) - true).square().mean())
    assert apart["shrunk"] < 0.6 * apart["own"]
