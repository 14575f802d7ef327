"""A module that begins at a schedule draws it, on images that it was not fitted on."""

from types import SimpleNamespace

import pytest
import torch

from asyncdiff_cli.engine import (
    Combined,
    FixedDeviation,
    LearnedDeviation,
    ScaledSchedule,
    ScheduledDeviation,
    VelocityScale,
)
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.training import imitation
from asyncdiff_cli.engine.training.imitation import MARGIN, fitted_steps, imitate, watch
from asyncdiff_cli.engine.training.recipe_files import parse_recipe
from asyncdiff_cli.engine.training.state import TrainingState, new_tpm
from benchmarks.gaussian import World
from tests.helpers.training import open_run, rows

SCHEDULE = (0.6, -0.2, 0.9, 0.0)
WORLD = World.of_images([0.3, 1.0])
RECIPE = {"num_inference_steps": 5, "rewards": {"noise": 1}, "tpm": {"width": 32, "layers": 1}}


@pytest.fixture(scope="module")
def canvas():
    return Canvas(WORLD.backbone())


def fitted(canvas, bound, schedule):
    tpm = new_tpm(parse_recipe({**RECIPE, "bound": bound}), canvas.backbone)
    prompts = [*WORLD.spectra] * 4
    imitate(tpm, [watch(canvas, prompts, ScheduledDeviation(schedule), 5, seed=0)])
    return tpm


def test_it_draws_the_schedule_on_other_images(canvas):
    tpm = fitted(canvas, 1.0, SCHEDULE)
    text, prompts = canvas.encode([*WORLD.spectra]), [*WORLD.spectra] * 8
    found = canvas.sample([text[p] for p in prompts], range(16), LearnedDeviation(tpm), 5)
    assert torch.allclose(found.deviations.mean(0), torch.tensor(SCHEDULE), atol=0.05)
    assert (found.deviations - torch.tensor(SCHEDULE)).abs().max() < 0.25


def test_it_draws_it_at_numbers_of_steps_that_it_was_not_fitted_at(canvas):
    recipe = parse_recipe({**RECIPE, "bound": 1.0, "step_range": [3, 7]})
    assert fitted_steps(recipe) == [3, 5, 7]
    assert fitted_steps(recipe.model_copy(update={"step_range": (5, 6)})) == [5, 6]
    tpm, policy, prompts = new_tpm(recipe, canvas.backbone), FixedDeviation(0.5), [*WORLD.spectra]
    imitate(tpm, [watch(canvas, prompts * 4, policy, k, seed=0) for k in fitted_steps(recipe)])
    text = canvas.encode(prompts)
    for steps in (4, 6):
        found = canvas.sample([text[p] for p in prompts], range(2), LearnedDeviation(tpm), steps)
        assert (found.deviations - 0.5).abs().max() < 0.2


def test_its_draws_spread_as_an_untrained_module_s(canvas):
    seen = watch(canvas, [*WORLD.spectra], ScheduledDeviation(SCHEDULE), 5, seed=0).seen
    alpha, beta = fitted(canvas, 1.0, SCHEDULE)(seen)
    assert torch.allclose(alpha + beta, torch.full_like(alpha, 2.0), atol=0.1)


def test_it_leaves_other_actions_as_they_are(canvas):
    recipe = parse_recipe({**RECIPE, "actions": ["deviation", "scale"]})
    tpm = new_tpm(recipe, canvas.backbone)
    watched = watch(canvas, [*WORLD.spectra], FixedDeviation(0.3), 5, seed=0)
    imitate(tpm, [watched])
    deviation, scale = modes(tpm, watched.seen)
    assert torch.allclose(deviation, torch.tensor(0.8), atol=0.05)
    assert torch.allclose(scale, torch.tensor(0.5), atol=0.05)


@pytest.mark.parametrize(
    ("policy", "deviation", "scales"),
    [
        (Combined(0.25, 0.8), 0.75, [0.3] * 4),
        (ScaledSchedule([0.25] * 4, [0.9, 1.1, 0.7, 1.0]), 0.75, [0.4, 0.6, 0.2, 0.5]),
        (VelocityScale(0.8), 0.5, [0.3] * 4),
    ],
)
def test_it_decides_the_scales_of_a_policy_too(canvas, policy, deviation, scales):
    recipe = parse_recipe({**RECIPE, "actions": ["deviation", "scale"]})
    tpm = new_tpm(recipe, canvas.backbone)
    watched = watch(canvas, [*WORLD.spectra], policy, 5, seed=0)
    assert torch.allclose(watched.scales, 0.5 + torch.tensor(scales)[:, None].expand(4, 2))
    imitate(tpm, [watched])
    found, ratio = modes(tpm, watched.seen)
    assert torch.allclose(found, torch.tensor(deviation), atol=0.05)
    assert torch.allclose(ratio, torch.tensor(scales)[:, None], atol=0.05)


def modes(tpm, seen):
    """r* of both actions, [S, B] each."""
    alpha, beta = (answer.unflatten(0, (4, 2)) for answer in tpm(seen))
    return (alpha / (alpha + beta)).unbind(1)


def test_what_is_beyond_the_bound_is_at_it(canvas):
    watched = watch(canvas, [*WORLD.spectra], ScheduledDeviation((1.0,) * 4), 5, seed=0)
    assert watched.deviations.tolist() == [[1.0, 1.0]] * 4
    assert watched.scales.tolist() == [[1.0, 1.0]] * 4
    alpha, beta = fitted(canvas, 0.5, (1.0,) * 4)(watched.seen)
    assert torch.allclose(alpha / (alpha + beta), torch.tensor(1 - MARGIN), atol=0.01)


def test_processes_go_on_from_the_mean_of_what_they_have(canvas, monkeypatch):
    monkeypatch.setattr(imitation, "FITTING_STEPS", 10)
    recipe = parse_recipe({**RECIPE, "ema_decay": 0.9})
    watched = [watch(canvas, [*WORLD.spectra], ScheduledDeviation(SCHEDULE), 5, seed=0)]
    alone, both = (TrainingState(recipe, canvas.backbone, torch.device("cpu")) for _ in range(2))
    alone.begin_at(watched, SimpleNamespace(num_processes=1))
    accelerator = SimpleNamespace(num_processes=2, reduce=lambda weights, how: weights / 2)
    both.begin_at(watched, accelerator)  # beside one whose weights are all 0
    for one, other, average in zip(
        *(module.parameters() for module in (alone.tpm, both.tpm, both.average)), strict=True
    ):
        assert torch.equal(one / 2, other)
        assert torch.equal(other, average)


def test_a_run_begins_at_its_schedule_and_says_where_its_bound_is(tmp_path, sd3_directory):
    changes = {"iterations": 1, "evaluation": {"every": 0}, "ema_decay": 0.9, "bound": 0.5}
    trainer = open_run(tmp_path / "r", sd3_directory, start="schedule:0.3/-0.75", **changes)
    events = list(trainer.train())
    assert [name for name, _ in events] == ["warning", "iteration"]
    assert "D up to 0.75: the module begins at its bound, 0.5" in events[0][1]["warning"]
    row = rows(tmp_path / "r")[-1]
    modes = [(a - 1) / (a + b - 2) for a, b in zip(row["alpha"], row["beta"], strict=True)]
    assert modes == pytest.approx([0.8, MARGIN], abs=0.02)
