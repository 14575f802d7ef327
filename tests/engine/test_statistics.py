"""Paired differences with their intervals, and the composite in units of the baseline."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine.rewards.composite import relative_composite
from asyncdiff_cli.engine.statistics import bootstrap_interval, paired, standard_error


def normal(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 2.0, count)


@pytest.mark.parametrize("count", [100, 800])
def test_the_interval_of_many_values_is_the_normal_one(count):
    values = normal(count)
    half = 1.96 * values.std() / math.sqrt(count)
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_the_interval_holds_the_truth_about_nineteen_times_in_twenty():
    trials = 80
    ends = np.array([bootstrap_interval(normal(40, seed)) for seed in range(trials)])
    share = ((ends[:, 0] < 3.0) & (ends[:, 1] > 3.0)).mean()
    assert 0.90 <= share <= 0.98


def test_the_interval_is_the_same_every_time_and_depends_on_its_seed():
    values = normal(50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20))
def test_the_interval_lies_within_the_values(values):
    low, high = bootstrap_interval(np.array(values))
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_equal_values_have_an_interval_of_a_point():
    assert bootstrap_interval(np.full(7, 0.25)) == (0.25, 0.25)
    assert bootstrap_interval(np.array([4.0])) == (4.0, 4.0)


def test_a_pair_of_values_is_counted_out():
    """Means of two draws of {0, 1} are 0, ½ and 1, with the chances ¼, ½ and ¼."""
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0.0, 1.0)


def test_a_difference_by_hand():
    found = paired(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, 1.0]))
    assert (found.mean, found.difference, found.n) == (3.0, 2.0, 3)
    assert 1 <= found.low < 2 < found.high <= 3
    assert found.better


def test_pairs_cancel_what_their_prompts_have_in_common():
    """Prompts differ by hundreds, the pairs by 1 ± 0.1; unpaired that would be noise."""
    prompts = 100 * torch.randn(64, generator=torch.Generator().manual_seed(0)).double()
    gains = 1 + 0.1 * torch.from_numpy(normal(64) - 3) / 2
    found = paired(prompts + gains, prompts)
    low, high = bootstrap_interval(gains.numpy())
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert high - low < 0.06


@pytest.mark.parametrize(
    ("scores", "better"),
    [([1.0, 2.0, 3.0], True), ([-1.0, -2.0, -3.0], False), ([1.0, -1.0, 0.5], False)],
)
def test_better_is_a_whole_interval_above_zero(scores, better):
    assert paired(torch.tensor(scores), torch.zeros(3)).better is better


def test_no_difference_is_not_better():
    found = paired(torch.ones(5), torch.ones(5))
    assert (found.difference, found.low, found.high, found.better) == (0, 0, 0, False)


def test_the_standard_error_by_hand():
    """Differences 1, 2, 3 have the deviation 1 (of N − 1)."""
    scores, baseline = torch.tensor([2.0, 4.0, 6.0]), torch.tensor([1.0, 2.0, 3.0])
    assert standard_error(scores, baseline) == pytest.approx(1 / math.sqrt(3))
    assert standard_error(scores[:1], baseline[:1]) == math.inf


def test_the_relative_composite_by_hand():
    """a has the baseline mean 2 and deviation 1, b 10 and 5; weights 1 and 3."""
    baseline = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([5.0, 15.0])}
    scores = {"a": torch.tensor([4.0, 2.0, 0.0]), "b": torch.tensor([10.0, 20.0, 5.0])}
    composite = relative_composite(scores, baseline, {"a": 1.0, "b": 3.0})
    expected = [(2 + 3 * 0) / 4, (0 + 3 * 2) / 4, (-2 + 3 * -1) / 4]
    assert composite.dtype == torch.float64
    assert composite.tolist() == pytest.approx(expected)
    doubled = relative_composite(scores, baseline, {"a": 2.0, "b": 6.0})
    assert torch.allclose(doubled, composite)  # only the ratios of weights count


def test_the_baseline_is_the_zero_of_its_composite():
    generator = torch.Generator().manual_seed(0)
    baseline = {"a": torch.rand(50, generator=generator), "b": 22 + torch.rand(50)}
    composite = relative_composite(baseline, baseline, {"a": 1.0, "b": 1.0})
    assert composite.mean().item() == pytest.approx(0, abs=1e-9)
    assert composite.abs().max() > 0.1


@pytest.mark.parametrize("value", [0.0, 0.1, 22.7, -3.3])
def test_a_metric_that_is_constant_over_the_baseline_contributes_nothing(value):
    baseline = {"a": torch.tensor([1.0, 3.0, 2.0]), "b": torch.full((3,), value)}
    baseline["b"][0] += 1e-8 * value  # by rounding
    scores = {"a": torch.tensor([2.0, 2.0, 2.0]), "b": torch.tensor([5.0, -5.0, 100.0])}
    composite = relative_composite(scores, baseline, {"a": 1.0, "b": 1.0})
    assert torch.equal(composite, torch.zeros(3, dtype=torch.float64))
