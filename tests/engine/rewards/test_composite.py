import math

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine import InputError, composite
from asyncdiff_cli.engine.rewards.composite import parse_weights, standardize

scores = st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=16).map(torch.tensor)


def test_z_scores_by_hand():
    z = standardize(torch.tensor([1.0, 2.0, 3.0, 6.0]))  # mean 3, variance 3.5
    expected = [x / math.sqrt(3.5) for x in (-2, -1, 0, 3)]
    assert z.tolist() == pytest.approx(expected)


def test_the_composite_is_the_mean_of_the_z_scores():
    group = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([30.0, 10.0])}
    assert composite(group, {"a": 1, "b": 1}).tolist() == [0, 0]
    assert composite(group, {"a": 3, "b": 1}).tolist() == pytest.approx([-0.5, 0.5])


def test_a_constant_metric_contributes_nothing():
    group = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([0.27, 0.27 + 1e-8])}
    assert composite(group, {"a": 1, "b": 1}).tolist() == pytest.approx([-0.5, 0.5])
    assert composite({"b": group["b"]}, {"b": 1}).tolist() == [0, 0]
    assert standardize(torch.zeros(3)).tolist() == [0, 0, 0]


@given(scores)
def test_z_scores_have_mean_0_and_deviation_1_or_are_all_0(values):
    z = standardize(values)
    assert z.mean().item() == pytest.approx(0, abs=1e-6)
    deviation = z.std(correction=0).item()
    assert deviation == pytest.approx(1, abs=1e-6) or not z.any()


@given(scores, st.floats(0.01, 100), st.floats(-10, 10))
def test_the_unit_of_a_metric_does_not_matter(values, scale, shift):
    values = values.double().round(decimals=2)
    moved = standardize(scale * values + shift)
    if moved.any():  # a large shift can make a metric constant
        torch.testing.assert_close(moved, standardize(values), rtol=0, atol=1e-4)


def test_recipes_name_metrics_and_weights():
    text = "rewards: {image_reward: 1, hpsv2: 1, clip: 0.5, pickscore: 1, noise: 0}"
    weights = parse_weights(yaml.safe_load(text)["rewards"])
    assert weights == {"image_reward": 1.0, "hpsv2": 1.0, "clip": 0.5, "pickscore": 1.0}


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ({"image_rewards": 1}, "did you mean 'image_reward'"),
        ({"clip": -1}, "not -1"),
        ({"clip": float("nan")}, "not nan"),
        ({"clip": "much"}, "not 'much'"),
        ({"clip": True}, "not True"),
        ({"clip": 0}, "no reward has a weight"),
        ({}, "no reward has a weight"),
        (["clip"], "names with weights"),
    ],
)
def test_weights_that_cannot_work_are_refused(rewards, message):
    with pytest.raises(InputError, match=message):
        parse_weights(rewards)


def test_a_missing_metric_never_drops_out():
    with pytest.raises(InputError, match="no scores of pickscore"):
        composite({"clip": torch.tensor([0.1, 0.2])}, {"clip": 1, "pickscore": 1})
