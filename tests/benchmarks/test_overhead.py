"""The overhead benchmark compares like with like."""

import numpy as np
import pytest

from asyncdiff_cli.engine import backbone_from_pipeline
from benchmarks.overhead import STOCK, measure, median_interval, methods


def test_all_methods_do_the_same_work(sd3):
    backbone = backbone_from_pipeline(sd3)
    drawn = {
        name: np.stack([np.asarray(image) for image in draw()])
        for name, draw in methods(backbone, batch=2, steps=3).items()
    }
    assert (drawn["sample, synchronous"] == drawn[STOCK]).all()
    assert (drawn["attach, synchronous"] == drawn[STOCK]).all()
    assert (drawn["attach, fixed"] == drawn["sample, fixed"]).all()
    assert (drawn["sample, fixed"] != drawn[STOCK]).any()


def test_every_round_times_every_method():
    calls = []
    draw = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = measure(draw, rounds=4)
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abc", 4)
    assert [sorted(calls[i : i + 3]) for i in range(0, 15, 3)] == [["a", "b", "c"]] * 5


def test_the_interval_holds_the_median():
    assert median_interval(np.full(9, 1.01)) == (1.01, 1.01, 1.01)
    values = np.random.default_rng(1).normal(1, 0.1, 200)
    median, low, high = median_interval(values)
    assert low < median < high
    assert median == pytest.approx(1, abs=0.03)
    # the standard error of a median of normal values is 1.253 σ / √n
    assert high - low == pytest.approx(2 * 1.96 * 1.253 * 0.1 / 200**0.5, rel=0.5)
