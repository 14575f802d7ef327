"""When a rising reward is a bad sign."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine.training.early_stop import EarlyStop, Snapshot

ZERO = (0.0, 0.1, -0.1, 0.0)


def shifted(values, by):
    """The same prompts, all better or worse by as much."""
    return tuple(value + by for value in values)


def snapshot(iteration, training, held_out=0.0, noise=0.0):
    return Snapshot(iteration, training, shifted(ZERO, held_out), shifted(ZERO, noise - 2))


def seen(*snapshots):
    """What is known after these, and the warnings."""
    watch, warnings = EarlyStop(), []
    for each in snapshots:
        watch, warning = watch.update(each)
        warnings.append(warning)
    return watch, warnings


def test_a_healthy_training_is_no_reason_to_warn():
    watch, warnings = seen(*(snapshot(n, 0.1 * n, 0.1 * n, 0.1 * n) for n in range(1, 6)))
    assert warnings == [None] * 5
    assert (watch.bad, watch.first.iteration, watch.best.iteration) == (0, 1, 5)


def test_the_held_out_reward_that_falls_while_the_training_reward_rises_is_a_bad_sign():
    watch, warnings = seen(snapshot(10, 0.0), snapshot(20, 0.5, 0.5), snapshot(30, 1.0, 0.2))
    assert warnings[:2] == [None, None]
    assert warnings[2] == (
        "iteration 30: the training reward rose, but the held-out reward fell from +0.500"
        " (iteration 20) to +0.200"
    )
    assert (watch.bad, watch.best.iteration) == (1, 20)


def test_noise_that_rises_with_the_rewards_is_a_bad_sign():
    watch, warnings = seen(snapshot(10, 0.0), snapshot(20, 0.5, 0.5, noise=-1))
    assert warnings[1] == (
        "iteration 20: the training reward rose, but the residual noise rose from 2.00 to 3.00"
        " of 255"
    )
    assert watch.bad == 1
    assert watch.best.iteration == 20  # by the reward


def test_both_signs_are_one_warning():
    watch, (_, warning) = seen(snapshot(1, 0.0), snapshot(2, 0.5, -1, -1))
    assert "the held-out reward fell" in warning
    assert "and the residual noise rose" in warning
    assert watch.bad == 1


def test_a_training_that_got_worse_hacks_no_reward():
    watch, warnings = seen(snapshot(1, 0.0), snapshot(2, -0.5, -1, -1))
    assert (warnings, watch.bad) == ([None, None], 0)


def test_a_recovery_starts_the_count_again():
    bad, good = snapshot(2, 0.5, -1), snapshot(4, 0.5, 1)
    watch, warnings = seen(snapshot(1, 0.0), bad, bad, good)
    assert [warning is not None for warning in warnings] == [False, True, True, False]
    assert (watch.bad, watch.best.iteration) == (0, 4)
    assert seen(snapshot(1, 0.0), bad, bad, good, bad)[0].bad == 1
    assert seen(snapshot(1, 0.0), bad, bad, bad)[0].bad == 3


def test_a_fall_within_chance_is_none():
    before = Snapshot(1, 0.0, (0.0, 0.0, 0.0, 0.0), (-2.0,) * 4)
    scattered = Snapshot(2, 1.0, (1.0, -1.0, 1.0, -1.4), (-1.0, -3.0, -1.0, -3.4))
    assert scattered.reward < before.reward
    assert seen(before, scattered)[1] == [None, None]
    steady = Snapshot(2, 1.0, (-0.1, -0.1, -0.1, -0.1), (-2.0,) * 4)
    assert steady.reward == pytest.approx(scattered.reward)
    assert seen(before, steady)[1][1] is not None


def test_one_prompt_tells_nothing():
    assert seen(Snapshot(1, 0.0, (0.0,), (-1.0,)), Snapshot(2, 1.0, (-9.0,), (-9.0,)))[1] == [
        None,
        None,
    ]


@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=1, max_size=8))
def test_the_best_is_the_first_of_the_highest(values):
    taken = [snapshot(n, *each) for n, each in enumerate(values)]
    watch, warnings = seen(*taken)
    assert watch.best == max(taken, key=lambda s: s.reward)
    assert watch.first == taken[0]
    tail = next((n for n, w in enumerate(reversed(warnings)) if w is None), len(warnings))
    assert watch.bad == tail
