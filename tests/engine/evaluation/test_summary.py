"""What an evaluation found, counted out by hand on stores of a few rows."""

import math

import numpy as np
import pytest

from asyncdiff_cli.engine import InputError
from asyncdiff_cli.engine.evaluation.setting import Setting
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import summarize
from asyncdiff_cli.engine.statistics import paired
from tests.helpers.stores import SETTINGS, row


@pytest.fixture
def fill(tmp_path):
    """A store of rows: a policy with a list of scores, one per prompt, and changes to its rows."""

    def make(*policies):
        store = Store.open(tmp_path / "store", SETTINGS)
        for policy, scores, changes in policies:
            for n, score in enumerate(scores):
                if score is not None:
                    store.write([row(n, policy, sharpness=score, noise=-score, **changes)])
        return store

    return make


BASELINE = ("baseline", [1.0, 2.0, 6.0], {"bound": 1.0, "deviations": [0.0, 0.0]})


def test_means_and_paired_differences(fill):
    found = summarize(fill(BASELINE, ("learned", [2.0, 4.0, 9.0], {})))
    baseline, learned = found.results
    assert (found.prompts, found.partial, found.rewards) == (3, 0, ("sharpness", "noise"))
    assert found.settings == {"format": 1, **SETTINGS}
    assert baseline.setting == Setting("baseline", 1.0, 1.0, 3)
    assert learned.setting == Setting("learned", 1.0, 0.5, 3)
    assert (baseline.is_baseline, learned.is_baseline) == (True, False)
    assert learned.metrics["sharpness"] == paired([2.0, 4.0, 9.0], [1.0, 2.0, 6.0])
    assert learned.metrics["sharpness"].mean == 5.0
    assert learned.metrics["sharpness"].difference == 2.0
    assert learned.metrics["noise"].difference == -2.0
    assert (learned.metrics["sharpness"].better, learned.metrics["noise"].better) == (True, False)
    assert vars(baseline.metrics["sharpness"]) == {
        **{"mean": 3.0, "difference": 0.0, "low": 0.0, "high": 0.0, "n": 3}
    }
    assert found.baseline(3) is baseline


def test_scores_are_in_the_order_of_the_prompts(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    for n in (2, 0, 1):
        store.write([row(n, "learned", sharpness=10.0 + n)])
    for n in (1, 2, 0):
        store.write([row(n, sharpness=float(n))])
    for result in summarize(store).results:
        assert (result.scores["sharpness"] % 10).tolist() == [0, 1, 2]
        assert result.metrics["sharpness"].low == result.metrics["sharpness"].high


def test_the_mean_deviation_and_the_share_at_the_bound(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    for n, deviations in enumerate([[0.5, 0.0], [-0.4999, 0.25], [0.49, 0.25], [0.5, -0.5]]):
        store.write([row(n, deviations=[0.0, 0.0]), row(n, "learned", deviations=deviations)])
    baseline, learned = summarize(store).results
    assert learned.deviations.shape == (4, 2)
    assert learned.deviations.dtype == np.float32
    assert learned.mean_deviation == pytest.approx((0.5 - 0.4999 + 0.49 + 0.5) / 8)
    assert learned.at_bound.tolist() == [0.75, 0.25]
    assert (baseline.mean_deviation, baseline.at_bound.tolist()) == (0.0, [0.0, 0.0])


def test_the_seconds_are_the_mean(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    store.write([row(0, seconds=1.0), row(1, seconds=3.0)])
    assert summarize(store).results[0].seconds == 2.0


def test_an_infinite_bound_is_never_reached(fill):
    endless = ("detail-daemon", [1.0, 1.0, 1.0], {"bound": math.inf, "deviations": [5.0, 0.0]})
    daemon = summarize(fill(BASELINE, endless)).results[1]
    assert daemon.setting.bound == math.inf
    assert (daemon.mean_deviation, daemon.at_bound.tolist()) == (2.5, [0.0, 0.0])


def test_only_prompts_that_all_policies_have_count(fill):
    learned = ("learned", [3.0, 5.0, None, 1.0], {})
    fixed = ("fixed:0.5", [None, 7.0, 8.0], {})
    found = summarize(fill(BASELINE, learned, fixed))
    assert (found.prompts, found.partial) == (1, 3)
    assert {r.setting.policy: r.metrics["sharpness"].mean for r in found.results} == {
        "baseline": 2.0,
        "fixed:0.5": 7.0,
        "learned": 5.0,
    }
    assert all(len(r.deviations) == r.metrics["noise"].n == 1 for r in found.results)


def test_another_noise_of_a_prompt_is_another_pair(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    store.write([row(0), row(0, seed=5), row(0, "learned")])
    found = summarize(store)
    assert (found.prompts, found.partial) == (1, 0)
    assert found.notes == (
        "images of the compared prompts are left out, for some policy has not drawn their noise: 1",
    )


def test_the_noises_of_a_prompt_are_averaged_before_prompts_are_resampled(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    for n, noises in enumerate([(1.0, 3.0), (5.0, 9.0)]):
        for seed, score in enumerate(noises):
            rows = [row(n, policy, seed=seed) for policy in ("baseline", "learned")]
            store.write([{**rows[0], "sharpness": 0.0}, {**rows[1], "sharpness": score}])
    found = summarize(store)
    assert (found.prompts, found.partial) == (2, 0)
    assert found.results[1].metrics["sharpness"] == paired([2.0, 7.0], [0.0, 0.0])
    assert found.results[1].scores["sharpness"].tolist() == [1.0, 3.0, 5.0, 9.0]
    store.write([row(2, seed=0), row(2, "learned", seed=0)])  # one noise, where others have two
    assert (summarize(store).prompts, summarize(store).partial) == (2, 1)


def test_policies_without_a_prompt_in_common(fill):
    with pytest.raises(InputError, match="no prompt yet that all policies have drawn: go on"):
        summarize(fill(BASELINE, ("learned", [None, None, None, 1.0], {})))


def test_without_a_baseline_there_is_nothing_to_compare_with(fill):
    message = r"no baseline of 3 steps to compare with: evaluate with --policies baseline,…"
    with pytest.raises(InputError, match=message):
        summarize(fill(("learned", [1.0], {})))


def test_an_empty_store_says_so(fill):
    with pytest.raises(InputError, match=r"store has no rows$"):
        summarize(fill())


def test_each_number_of_steps_has_its_own_baseline(fill):
    few, many = ({"num_inference_steps": steps} for steps in (4, 10))
    store = fill(
        ("baseline", [1.0, 2.0], few),
        ("learned", [3.0, 4.0], few),
        ("baseline", [10.0, 20.0], many),
        ("learned", [11.0, 21.0], many),
    )
    found = summarize(store)
    assert [(r.setting.steps, r.setting.policy) for r in found.results] == [
        (4, "baseline"),
        (4, "learned"),
        (10, "baseline"),
        (10, "learned"),
    ]
    assert [r.metrics["sharpness"].difference for r in found.results] == [0, 2, 0, 1]
    assert found.baseline(4).metrics["sharpness"].mean == 1.5
    assert found.baseline(10).metrics["sharpness"].mean == 15.0


def test_a_number_of_steps_without_a_baseline(fill):
    store = fill(BASELINE, ("learned", [1.0], {"num_inference_steps": 5}))
    with pytest.raises(InputError, match="no baseline of 5 steps"):
        summarize(store)


def test_each_gamma_is_a_row(fill):
    store = fill(
        BASELINE, *(("learned", [1.0, 2.0, 6.0 + g], {"gamma": g}) for g in (2.0, 0.5, 1.0))
    )
    found = summarize(store)
    assert [r.setting.label for r in found.results] == [
        "baseline",
        "learned, γ = 0.5",
        "learned",
        "learned, γ = 2",
    ]
    differences = [r.metrics["sharpness"].difference for r in found.results]
    assert differences == pytest.approx([0, 0.5 / 3, 1 / 3, 2 / 3])


def test_a_category_by_itself(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    for n, category in enumerate(["color", "shape", "color", None]):
        store.write([row(n, category=category), row(n, "learned", category=category)])
    store.write([row(4, category="shape")])
    assert [summarize(store, name).prompts for name in ("color", "shape")] == [2, 1]
    assert [summarize(store, name).partial for name in ("color", "shape")] == [0, 1]
    assert summarize(store, "color").results[0].scores["sharpness"].tolist() == [0.1, 2.1]
    assert summarize(store).prompts == 4
    with pytest.raises(InputError, match="store has no rows of colour"):
        summarize(store, "colour")


def test_runs_of_one_step_have_no_deviations(fill):
    one = {"num_inference_steps": 1, "deviations": [], "cond_sigmas": [1.0]}
    for result in summarize(
        fill(("baseline", [1.0, 2.0], one), ("learned", [1.0, 3.0], one))
    ).results:
        assert result.deviations.shape == (2, 0)
        assert (result.mean_deviation, result.at_bound.tolist()) == (0.0, [])
