"""The benchmark of the estimator: what it reports of curves, and that its runs learn."""

import pytest

from benchmarks import learning

SHORT = {"iterations": 4, "learning_rate": 3e-3}


def test_calls_are_counted_between_two_evaluations():
    curve = [(0, 0.0), (100, 0.8), (200, 1.0), (300, 0.5)]
    assert learning.calls_to(curve, 0.9) == pytest.approx(150)
    assert learning.calls_to(curve[2:], 0.9) == pytest.approx(180)
    assert learning.calls_to([(0, 0.95), (100, 1.0)], 0.9) == 0
    assert learning.calls_to(curve[:2], 0.9) == 100  # never, so far


def test_no_constant_is_a_solution():
    best, none = learning.WORLD.optimum(learning.STEPS), 0 * learning.WORLD.optimum(learning.STEPS)
    gain = float(learning.WORLD.error(none) - learning.WORLD.error(best))
    constants = [float(learning.WORLD.error(none + c / 20)) for c in range(-20, 21)]
    assert float(learning.WORLD.error(none)) - min(constants) < learning.SHARE * gain


@pytest.mark.slow
def test_rows_are_beside_mini_s_groups_from_the_same_seeds():
    names = [learning.BESIDE, "start at fixed:0.5", learning.PATHWISE]
    rows = list(learning.measured(names, 2, SHORT))
    assert [row["option"] for row in rows] == names
    first, begun, pathwise = rows
    assert (first["difference"], first["low"], first["high"]) == (0, 0, 0)
    assert first["start"] == pathwise["start"] == pytest.approx(0, abs=1e-6)
    assert begun["start"] > 0.3
    for row in rows:
        assert len(row["calls"]) == 2
        assert row["end"] > 0.3


def test_every_option_is_a_recipe():
    for changes in learning.OPTIONS.values():
        learning.parse_recipe({**learning.MINI, **SHORT, **changes})
