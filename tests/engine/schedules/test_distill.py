"""Schedules of modules: those of a known one are found again, and what choice adds is told."""

import pytest
import torch

from asyncdiff_cli.engine import LearnedDeviation, TimestepPredictionModule
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.schedules.distill import distill_policy, share_of_step
from asyncdiff_cli.engine.schedules.job import Workbench
from asyncdiff_cli.engine.schedules.journal import Journal
from asyncdiff_cli.engine.schedules.picture_set import PictureSet
from asyncdiff_cli.engine.schedules.search import Search
from tests.conftest import make_case

STEPS = 4
PROMPTS = "a cat", "a red rose", "a dog"


def tiny(kind: type = TimestepPredictionModule, **settings) -> TimestepPredictionModule:
    torch.manual_seed(0)
    sizes = {"width": 32, "layers": 1, "heads": 2, "patch_size": 4, **settings}
    return kind(16, 32, 32, **sizes)


class BySteps(TimestepPredictionModule):
    """Decides 0.4, 0.1, −0.3 whatever it sees but the step."""

    KNOWN = 0.4, 0.1, -0.3

    def forward(self, seen, constant=None):
        ratio = 0.5 + torch.tensor(self.KNOWN) / (2 * self.bound)
        step = (seen.progress * STEPS).round().long()
        return 8 * ratio[step], 8 * (1 - ratio[step])


class ByPicture(TimestepPredictionModule):
    """Decides by the sign of the prompt's embedding alone."""

    def forward(self, seen, constant=None):
        ratio = seen.pooled_prompt_embeds.mean(-1).expand(len(seen.latents), -1)
        ratio = 0.5 + 0.4 * torch.sin(1000 * ratio)
        return ratio, 1 - ratio


@pytest.fixture(scope="module")
def canvas():
    return Canvas(make_case("sd3").backbone, size=16)


@pytest.fixture
def made(canvas, tmp_path):
    def call(tpm, **search):
        pictures = PictureSet(canvas, PROMPTS, (0, 1, 2), STEPS, batch_size=2)
        held_out = PictureSet(canvas, PROMPTS[::-1], (3, 4, 5), STEPS, batch_size=3)
        journal = Journal(tmp_path / "a.json", {})
        search = Search(**{"split": 2, "candidates": 3, "sweeps": 1, **search})
        bench = Workbench(pictures, held_out, None, journal, {})
        return distill_policy(LearnedDeviation(tpm), search, bench, lambda line: None)

    return call


@pytest.mark.parametrize("sweeps", [0, 1])
def test_a_module_that_sees_nothing_but_the_step_is_found_again(made, sweeps):
    schedule = made(tiny(BySteps, bound=0.5), sweeps=sweeps)
    assert schedule.deviations == pytest.approx(BySteps.KNOWN, abs=1e-3)
    assert schedule.made["share_of_step"] == pytest.approx(1)
    assert schedule.made["module_std"] == pytest.approx([0, 0, 0], abs=1e-6)
    assert schedule.made["error"] < 1e-4 * schedule.made["synchronous_error"]
    baseline, distilled, module = schedule.held_out["policies"]
    assert distilled["mean"] == pytest.approx(module["mean"], rel=1e-3)
    assert baseline["mean"] != pytest.approx(module["mean"], rel=1e-3)


def test_a_module_with_one_answer_is_found_again(made):
    tpm = tiny(bound=1)
    with torch.no_grad():
        tpm.head[-1].bias.copy_(torch.tensor([2.0, 0.0]))
    schedule = made(tpm)
    assert len(set(schedule.deviations)) == 1
    assert schedule.deviations[0] == pytest.approx(
        2 * (5 / 6 - 0.5), abs=1e-3
    )  # α − 1 = 5, β − 1 = 1
    assert schedule.made["share_of_step"] == 1


def test_of_a_module_that_chooses_by_picture_the_step_explains_nothing(made):
    schedule = made(tiny(ByPicture))
    assert schedule.made["share_of_step"] == pytest.approx(0, abs=1e-6)
    assert min(schedule.made["module_std"]) > 0.05
    assert 0 < schedule.made["error"] < schedule.made["synchronous_error"]
    adds = schedule.held_out["module_over_schedule"]
    assert adds["low"] <= adds["difference"] <= adds["high"]
    means = {row["policy"]: row["mean"] for row in schedule.held_out["policies"]}
    assert adds["difference"] == pytest.approx(means["module"] - means["distilled"])


@pytest.mark.parametrize(
    ("deviations", "share"),
    [
        ([[0.5, 0.1], [0.5, 0.1]], 1),
        ([[0.5, 0.5], [-0.5, -0.5]], 0),
        ([[1, 0], [0, 0]], 1 / 3),
        ([[0.3, 0.3], [0.3, 0.3]], 1),
    ],
)
def test_the_share_of_the_step(deviations, share):
    assert share_of_step(torch.tensor(deviations)) == pytest.approx(share)
