"""Schedules that are calibrated on a backbone."""

import pytest
import torch

from asyncdiff_cli.engine import (
    REGISTRY,
    InputError,
    Schedule,
    ScheduledDeviation,
    Synchronous,
    calibrated_schedule,
    load_backbone,
    sample,
)
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
from asyncdiff_cli.engine.schedules.search import Search
from tests.conftest import make_case

PROMPTS = ["a cat", "a red rose", "a dog"]
STEPS = 3
SIZE = 64


@pytest.fixture(scope="module")
def mini():
    return load_backbone("mini")


@pytest.fixture(scope="module")
def schedule(mini):
    search = Search(split=4, candidates=3, sweeps=1)
    return calibrated_schedule(mini, PROMPTS, STEPS, size=SIZE, search=search)


def test_it_comes_no_further_from_many_steps_than_without_deviations(mini, schedule):
    """On the pictures that were searched on; the errors are those of `sample`, too."""
    assert schedule.made["error"] <= schedule.made["synchronous_error"]
    drawn = []
    for policy, steps in ((Synchronous(), STEPS), (schedule.policy(), STEPS)):
        seeds = [torch.Generator().manual_seed(seed) for seed in range(3)]
        settings = {"num_inference_steps": steps, "generator": seeds, "output_type": "latent"}
        settings |= {"height": SIZE, "width": SIZE}
        drawn.append(sample(mini, PROMPTS, policy, **settings).latents)
    apart = float((drawn[0] - drawn[1]).square().mean())
    # three latents whose distances are these make a triangle
    least, most = sorted(schedule.made[name] ** 0.5 for name in ("error", "synchronous_error"))
    assert most - least - 1e-3 <= apart**0.5 <= most + least + 1e-3


def test_the_schedule_knows_what_it_is_for(mini, schedule, tmp_path):
    assert (schedule.backbone, schedule.solver, schedule.steps) == ("mini", "euler", STEPS)
    guidance = REGISTRY["mini"].guidance_scale
    assert (schedule.grid, schedule.guidance_scale, schedule.height) == ("model", guidance, SIZE)
    assert schedule.made["images"] == 3
    schedule.save(tmp_path / "s.json")
    assert Schedule.load(tmp_path / "s.json") == schedule
    drawn = sample(mini, PROMPTS[0], schedule.policy(), num_inference_steps=STEPS)
    assert drawn.cond_sigmas[0].tolist() == pytest.approx(schedule.cond_sigmas)
    again = sample(
        mini, PROMPTS[0], ScheduledDeviation(schedule.deviations), num_inference_steps=STEPS
    )
    assert torch.equal(drawn.cond_sigmas, again.cond_sigmas)


def test_batches_do_not_change_it_much():
    case = make_case("flux")
    search = Search(split=2, candidates=4, sweeps=0)
    told = []
    found = [
        calibrated_schedule(
            case.backbone, PROMPTS[:2], 3, size=16, search=search, batch_size=batch,
            on_settled=told.append,
        ).deviations
        for batch in (1, 2)
    ]  # fmt: skip
    assert found[0] == pytest.approx(found[1], abs=0.05)
    assert [one.index for one in told] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_inference_steps": 1}, "needs 2 steps"),
        ({"prompts": []}, "needs 2 steps"),
        ({"seeds": [1]}, "a seed each"),
        ({"batch_size": 0}, "needs 2 steps"),
        ({"size": 65}, "65"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(mini, change, message):
    given = {"prompts": PROMPTS[:2], "num_inference_steps": 4, **change}
    with pytest.raises(InputError, match=message):
        calibrated_schedule(mini, **given)


def test_heun_is_refused():
    case = make_case("sd3")
    case.pipe.scheduler = make_scheduler("heun", "sd3", case.pipe.scheduler.config)
    with pytest.raises(InputError, match="one evaluation a step"):
        calibrated_schedule(case.backbone, PROMPTS[:1], 3, size=16)
