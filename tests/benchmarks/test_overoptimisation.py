"""Trainings with other rewards: what their modules are compared by, and what would be kept."""

import json

import pytest

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.start import open_evaluation
from benchmarks.evidence.bench import Bench
from benchmarks.evidence.plan import Plan
from benchmarks.overoptimisation.__main__ import write
from benchmarks.overoptimisation.figure import front
from benchmarks.overoptimisation.markdown import to_markdown
from benchmarks.overoptimisation.study import (
    GUARDED,
    JUDGED,
    MIX,
    UNJUDGED,
    Study,
    early_stop,
    measure,
    recipes,
    train,
)
from tests.helpers.training import settings

CHANGES = {
    **{"guidance_scale": 2.0, "size": 16, "iterations": 3},
    **{"evaluation": {"every": 2, "prompts": 3}, "rewards": {"mini_quality": 1, "sharpness": 2}},
}


@pytest.fixture(scope="module")
def own(pipelines):
    """The three recipes of a tiny pipeline, whose judge is the sharpness."""
    overrides = [f"backbone={pipelines['sd3']}", *settings(CHANGES)]
    return recipes("mini", overrides, "sharpness", 0.5)


def test_recipes_differ_in_their_rewards_alone(own):
    assert {name: recipe.rewards for name, recipe in own.items()} == {
        MIX: {"mini_quality": 1, "sharpness": 2},
        GUARDED: {"mini_quality": 1, "sharpness": 2, "noise": 0.5},
        UNJUDGED: {"mini_quality": 1, "sharpness": 0},
    }
    rest = [recipe.model_dump(exclude={"rewards"}) for recipe in own.values()]
    assert rest[0] == rest[1] == rest[2]
    assert rest[0]["evaluation"]["patience"] is None
    assert rest[0]["checkpoint"]["every"] == 2


def test_a_judge_that_the_recipe_leaves_out_is_had_by_one_training():
    own = recipes("mini", (), "mini_judge", 0.5)
    assert [*own] == [MIX, GUARDED, JUDGED]
    assert own[JUDGED].rewards == {**own[MIX].rewards, "mini_judge": 1}


def test_an_unknown_judge_is_refused():
    with pytest.raises(InputError, match=r"unknown reward 'jugde'"):
        recipes("mini", (), "jugde", 0.5)


def test_each_checkpoint_is_beside_synchronous_sampling(own, tmp_path):
    rewards = {"sharpness": 1.0, "noise": 1.0}
    few = {MIX: own[MIX].model_copy(update={"rewards": rewards})}
    plan = Plan(few[MIX], (3,), 3, rewards=("noise",), set_metrics=())
    study = Study(few, plan, tmp_path)
    train(study, MIX)
    before = (study.run(MIX) / "metrics.jsonl").read_bytes()
    train(study, MIX)  # which finds all there
    assert (study.run(MIX) / "metrics.jsonl").read_bytes() == before
    report = measure(study, Bench(open_evaluation(plan.comparison(), tmp_path / "model")))
    (found,) = report["runs"]
    assert [point["iteration"] for point in found["points"]] == [2, 3]
    assert found["kept"] in (2, 3)
    for point in found["points"]:
        assert {*point["metrics"]} == {"composite", "sharpness", "noise"}
        assert point["metrics"]["noise"]["n"] == 3
    write(report, tmp_path)
    text = (tmp_path / "overoptimisation.json").read_text()
    assert to_markdown(json.loads(text)) == (tmp_path / "overoptimisation.md").read_text()
    assert (tmp_path / "overoptimisation.png").stat().st_size > 1000


def test_early_stopping_is_told_from_the_warnings():
    rows = [{"iteration": 0, "held_out": {}}]
    for n, best in ((10, 10), (20, 20), (30, 20), (40, 20), (50, 20), (60, 60)):
        rows.append({"iteration": n, "held_out": {}, "best": best})
        rows += [{"iteration": n, "warning": "the held-out reward fell"}] if 20 < n < 60 else []
    assert early_stop(rows, 3) == {"kept": 60, "early_stop": 50, "early_kept": 20}
    assert early_stop(rows, 4) == {"kept": 60, "early_stop": None, "early_kept": None}


def test_the_front_is_what_no_other_point_beats():
    points = [(0.0, 0.0), (-1.0, 2.0), (-2.0, 1.0), (-3.0, 3.0), (0.0, -1.0)]
    assert front(points) == [(0.0, 0.0), (-1.0, 2.0), (-3.0, 3.0)]
    assert front([(0.0, 0.0), (-1.0, 2.0), (-2.0, -1.0)], -1) == [(0.0, 0.0), (-2.0, -1.0)]
