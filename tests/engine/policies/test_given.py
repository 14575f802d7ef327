import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine import (
    Combined,
    DetailDaemon,
    FixedDeviation,
    InputError,
    ScheduledDeviation,
    Synchronous,
    TimeShift,
    VelocityScale,
    policy_from_dict,
)

inside = st.floats(-1, 1)


@pytest.mark.parametrize("bad", [1.01, -2, math.nan, math.inf, "x", None, [0.1, 1.5], []])
def test_fixed_refuses_what_is_not_a_deviation(bad):
    with pytest.raises(InputError, match="deviation"):
        FixedDeviation(bad)


def test_the_line_names_the_value_and_the_bound():
    with pytest.raises(InputError, match=r"^deviation 1.5 is outside \[-1, 1\]$"):
        FixedDeviation(1.5)
    with pytest.raises(InputError, match=r"^deviation 0.7 is outside \[-0.5, 0.5\]$"):
        ScheduledDeviation([0.2, 0.7], bound=0.5)


@pytest.mark.parametrize("bound", [0, 0.7, 2, math.nan])
def test_the_bound_is_the_paper_s_or_the_lifted_one(bound):
    with pytest.raises(InputError, match=r"bound is 0\.5 or 1"):
        ScheduledDeviation([0.1], bound=bound)


@given(st.lists(inside, min_size=1, max_size=30), st.integers(1, 60))
def test_resampling_keeps_the_ends_and_the_range(values, decisions):
    schedule = ScheduledDeviation(values).resampled(decisions)
    assert len(schedule) == decisions
    assert schedule[0] == values[0]
    assert min(values) - 1e-12 <= min(schedule)
    assert max(schedule) <= max(values) + 1e-12
    if decisions > 1:
        assert schedule[-1] == pytest.approx(values[-1])


@given(st.lists(inside, min_size=1, max_size=30))
def test_a_schedule_of_the_right_length_is_used_as_given(values):
    assert ScheduledDeviation(values).resampled(len(values)) == tuple(values)


def test_a_ramp_follows_its_shape():
    assert ScheduledDeviation.ramp(0, 1, decisions=3).deviations == (0, 0.5, 1)
    assert ScheduledDeviation.ramp(0, 1, decisions=3, shape=2).deviations == (0, 0.25, 1)
    assert ScheduledDeviation.ramp(0.5, -0.5, decisions=2).deviations == (0.5, -0.5)
    for decisions, shape in ((0, 1), (3, 0), (3, -1), (3, math.nan)):
        with pytest.raises(InputError, match="a ramp needs"):
            ScheduledDeviation.ramp(0, 1, decisions=decisions, shape=shape)


@pytest.mark.parametrize(
    "policy",
    [
        Synchronous(),
        FixedDeviation(0.25),
        FixedDeviation([0.25, -1]),
        ScheduledDeviation([0.1, 0.5], bound=0.5),
        DetailDaemon(0.2, start=0.1, smooth=False),
        VelocityScale(0.9),
        Combined(0.5, 1.1),
        TimeShift(0.25),
    ],
)
def test_a_description_makes_the_same_policy(policy):
    assert policy_from_dict(policy.to_dict()) == policy


def test_tensors_and_arrays_are_numbers_too():
    assert FixedDeviation(torch.tensor(0.5)) == FixedDeviation(0.5)
    assert FixedDeviation(torch.tensor([0.5, 0.25])) == FixedDeviation([0.5, 0.25])
    assert ScheduledDeviation(np.array([0.5, 0.25])) == ScheduledDeviation([0.5, 0.25])


def test_unknown_policies_come_with_the_nearest_name():
    with pytest.raises(InputError, match="unknown policy 'fixd'; did you mean 'fixed'"):
        policy_from_dict({"name": "fixd"})
    for settings in ({"amount": 1}, {}):
        with pytest.raises(InputError, match=r"policy fixed is not made of the settings \{"):
            policy_from_dict({"name": "fixed", **settings})
