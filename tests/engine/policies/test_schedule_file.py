"""Schedules as files, from the disk to a run."""

import json

import pytest
import torch

from asyncdiff_cli.engine import (
    InputError,
    Schedule,
    ScheduledDeviation,
    attach,
    parse_policy,
    policy_from_dict,
)
from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
from asyncdiff_cli.engine.errors import AsyncDiffWarning
from asyncdiff_cli.engine.policies.specs import read_policy
from tests.conftest import make_case

DEVIATIONS = (0.8, 0.5, -0.1)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a@2.json"
    made = {"command": "asyncdiff calibrate", "prompts_sha256": "00"}
    Schedule(deviations=DEVIATIONS, steps=4, backbone="mini", shift=3.0, made=made).save(path)
    return path


@pytest.fixture(scope="module")
def case():
    return make_case("sd3")


def test_what_is_saved_is_loaded(file):
    schedule = Schedule.load(file)
    assert schedule.deviations == DEVIATIONS
    assert (schedule.solver, schedule.steps, schedule.backbone) == ("euler", 4, "mini")
    assert schedule.made["prompts_sha256"] == "00"
    assert Schedule(deviations=[*DEVIATIONS], steps=4).deviations == DEVIATIONS
    assert "revision" not in json.loads(file.read_text())
    schedule.save(file)
    assert Schedule.load(file) == schedule


def test_a_run_deviates_by_the_file(case, file):
    expected = case.draw(ScheduledDeviation(DEVIATIONS), 0.7)
    policy = Schedule.load(file).policy()
    assert torch.equal(case.draw(policy, 0.7).images, expected.images)
    with attach(case.pipe, policy, 0.7) as trace:
        assert torch.equal(case.draw_stock(), expected.images)
    assert torch.equal(trace.deviations, expected.deviations)


def test_a_run_of_another_length_resamples_and_says_so(case, file):
    with pytest.warns(AsyncDiffWarning, match="has 3 deviations and the run takes 2"):
        drawn = case.draw(Schedule.load(file).policy(), 1.0, num_inference_steps=3)
    assert drawn.deviations[0].tolist() == pytest.approx([0.8, -0.1])


def test_a_run_by_another_solver_is_refused(case, file):
    own = case.pipe.scheduler
    case.pipe.scheduler = make_scheduler("heun", "sd3", own.config)
    try:
        with pytest.raises(InputError, match="for runs by euler, and this one is by heun"):
            case.draw(Schedule.load(file).policy(), 1.0)
    finally:
        case.pipe.scheduler = own


def test_a_line_names_the_file(file):
    label, policy, gamma = parse_policy(f"schedule:{file}@1.5", REGISTRY["mini"])
    assert (label, gamma) == (f"schedule:{file}", 1.5)
    assert policy == Schedule.load(file).policy()
    assert policy_from_dict(policy.to_dict()) == policy
    assert parse_policy(f"schedule:{file}", REGISTRY["mini"]).gamma == 1
    assert read_policy("schedule:0.5/0.2@2").values == (0.5, 0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deviations": [0.5]}, "4 steps of euler need 3 deviations, not 1"),
        ({"deviations": [0.5, 0.5, 1.5]}, "deviations.2"),
        ({"deviations": [0.5, None, 0.5]}, "deviations.1"),
        ({"deviations": []}, "deviations"),
        ({"solver": "heun"}, "4 steps of heun need 6 deviations, not 3"),
        ({"solver": "rk4"}, "solver"),
        ({"steps": 10**9}, "steps"),
        ({"format": 2}, "format"),
        ({"cond_sigmas": [2.0]}, "cond_sigmas"),
        ({"made": []}, "made"),
    ],
)
def test_a_file_of_another_shape_is_refused(file, change, message):
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match="is damaged") as refused:
        Schedule.load(file)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none\.json"):
        parse_policy(f"schedule:{tmp_path / 'none.json'}", REGISTRY["mini"])
