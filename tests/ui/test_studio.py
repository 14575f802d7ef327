"""Two pictures of one noise: how they are drawn, measured, kept and saved."""

import json
import re
import weakref
from dataclasses import replace

import pytest
import torch
from PIL import Image

from asyncdiff_cli.app import run
from asyncdiff_cli.engine import AsyncDiffError, FixedDeviation, InputError, desync, sample
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.drawing import job as job_module
from asyncdiff_cli.engine.drawing.provenance import read_provenance
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.ui import studio as module
from asyncdiff_cli.ui.studio import Studio


def pixels(take):
    return take.image.tobytes()


@pytest.fixture
def drawn(monkeypatch):
    """The policies of the batches that the model draws."""
    policies, honest = [], module.draw

    def draw(batch, *given):
        policies.append(batch.settings.policy.to_dict())
        return honest(batch, *given)

    monkeypatch.setattr(module, "draw", draw)
    return policies


def test_both_pictures_are_those_of_sample(studio, wish):
    pair = studio.draw(wish(gamma=1.5))
    for take, policy, gamma in ((pair.synchronous, None, 1.0),
                                (pair.asynchronous, FixedDeviation(0.5), 1.5)):  # fmt: skip
        noise = torch.Generator().manual_seed(7)
        result = sample(
            studio.job.backbone, "a cat", policy, gamma, 3, generator=noise, height=32, width=32
        )
        assert pixels(take) == result.images[0].tobytes()
        assert take.curve.deviations == tuple(result.deviations[0].tolist())
        assert take.curve.cond_sigmas == tuple(result.cond_sigmas[0].tolist())
        told = desync.cond_sigmas(take.sigmas, result.deviations[0], gamma)
        assert take.curve.cond_sigmas == pytest.approx(told.tolist())
        assert take.curve.sigmas[-1] == 0
    assert pair.synchronous.curve.cond_sigmas == pair.synchronous.curve.sigmas[:-1]


def test_the_difference_is_that_of_the_pixels(studio, wish):
    pair = studio.draw(wish())
    same = replace(pair, asynchronous=pair.synchronous)
    assert same.mean_difference == 0 < pair.mean_difference
    assert same.difference.getextrema() == ((0, 0),) * 3
    black, grey = (Image.new("RGB", (8, 8), (v, v, v)) for v in (0, 3))
    known = replace(pair, synchronous=replace(pair.synchronous, image=black),
                    asynchronous=replace(pair.asynchronous, image=grey))  # fmt: skip
    assert known.mean_difference == 3
    assert known.difference.getpixel((0, 0)) == (24, 24, 24)


def test_what_has_just_been_drawn_is_kept(studio, wish, drawn, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    first = studio.draw(wish())
    assert [policy["name"] for policy in drawn] == ["synchronous", "fixed"]
    assert studio.draw(wish()).asynchronous is first.asynchronous
    assert studio.draw(wish(policy="schedule:0.5/0")).synchronous is first.synchronous
    assert [policy["name"] for policy in drawn[2:]] == ["schedule"]
    again = studio.draw(wish())
    assert again.synchronous is first.synchronous
    assert [policy["name"] for policy in drawn[3:]] == ["fixed"]
    assert pixels(again.asynchronous) == pixels(first.asynchronous)


def test_the_model_is_loaded_once(studio, wish, monkeypatch):
    def load(*_):
        raise AssertionError("it is loaded already")

    monkeypatch.setattr("asyncdiff_cli.engine.drawing.job.load_outline", load)
    for steps in (1, 2):
        studio.save(studio.draw(wish(steps=steps)))
    with pytest.raises(AssertionError):
        studio.switch("mini")


def test_the_last_estimate_is_the_picture(studio, wish):
    take = studio.draw(wish()).asynchronous
    estimates = studio.estimates(take)
    assert len(estimates) == 3
    assert estimates[-1].tobytes() == pixels(take)
    assert estimates[0].tobytes() != pixels(take)


def test_a_solver_of_two_evaluations_a_step_has_twice_the_points(wish, tmp_path):
    studio = Studio.open(wish(), ModelChoice(device="cpu", scheduler="heun"), tmp_path)
    take = studio.draw(wish()).asynchronous
    assert len(take.curve.deviations) == len(take.curve.sigmas) - 2 == 4
    path = studio.save_schedule(studio.draw(wish()), "heun")
    assert Schedule.load(path).solver == "heun"


def test_rewards_are_those_that_are_here(studio, wish, pipelines, tmp_path):
    assert set(studio.scores(studio.draw(wish()))) == {
        "mini_judge", "mini_clip", "mini_quality", "sharpness", "noise"
    }  # fmt: skip
    other = Studio.open(
        wish(size=16), ModelChoice(backbone=str(pipelines["sd3"]), device="cpu"), tmp_path
    )
    scores = other.scores(other.draw(wish(size=16)))
    assert set(scores) == {"sharpness", "noise"}
    assert all(len(values) == 2 or isinstance(values, str) for values in scores.values())


def test_saved_pictures_are_drawn_again_to_the_bit(studio, wish):
    pair = studio.draw(wish(gamma=1.5))
    out = studio.job.out
    paths = [file.path for file in studio.save(pair)]
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in paths) == [
        "0000-a-cat-seed7-asynchronous.png",
        "0000-a-cat-seed7-compare.png",
        "0000-a-cat-seed7-synchronous.png",
    ]  # fmt: skip
    again = out.parent / "again"
    for path in paths[1:]:
        assert run(["sample", "--from", str(path), "--out", str(again)]) == 0
        assert (again / path.name).read_bytes() == path.read_bytes()
    with Image.open(paths[1]) as image:
        assert image.text["parameters"].startswith("a cat\n")  # which other tools read
    record = read_provenance(paths[1])
    assert (record.policy["name"], record.gamma, record.seed) == ("fixed", 1.5, 7)
    assert [file.path for file in studio.save(pair)] == paths
    other = studio.save(studio.draw(wish(gamma=0.5)))
    assert other[1].path.name == "0000-a-cat-seed7-asynchronous-2.png"


def test_a_saved_schedule_draws_the_same_picture(studio, wish):
    pair = studio.draw(wish(policy="schedule:0.8/-0.3", gamma=1.5))
    path = studio.save_schedule(pair, "mine")
    assert path == studio.job.out / "mine.json"
    schedule = Schedule.load(path)
    assert schedule.deviations == pytest.approx((0.8, -0.3))
    assert (schedule.steps, schedule.solver, schedule.height) == (3, "euler", 32)
    assert schedule.sigmas == pair.asynchronous.curve.sigmas
    assert (schedule.made["by"], schedule.made["gamma"]) == ("ui", 1.5)
    loaded = studio.draw(wish(policy=f"schedule:{path}", gamma=1.5))
    assert pixels(loaded.asynchronous) == pixels(pair.asynchronous)
    assert studio.save_schedule(pair, "mine.json") == path
    other = studio.save_schedule(studio.draw(wish()), "mine")
    assert other.name == "mine-2.json"


@pytest.mark.parametrize(
    ("policy", "steps", "name", "message"),
    [
        ("fixed:0.5", 3, "../mine", "'../mine' is not a file's name"),
        ("fixed:0.5", 3, "a\\b", "is not a file's name"),
        ("fixed:0.5", 3, " ", "'' is not a file's name"),
        ("fixed:0.5", 1, "mine", "a run of one step has no deviations"),
        ("velocity-scale", 3, "mine", "this policy scales the velocity too"),
        ("noise-shift:0.1", 3, "mine", "is outside [-1, 1]"),
    ],
)
def test_what_is_no_schedule_is_not_saved(studio, wish, policy, steps, name, message):
    pair = studio.draw(wish(policy=policy, steps=steps))
    with pytest.raises(InputError, match=re.escape(message)):
        studio.save_schedule(pair, name)
    assert not studio.job.out.exists()


def test_another_backbone_takes_the_place_of_the_first_if_it_loads(studio, wish, pipelines):
    first = studio.job.backbone
    with pytest.raises(InputError, match="unknown backbone 'minni'"):
        studio.switch("minni")
    assert studio.job.backbone is first
    studio.switch(str(pipelines["sd3"]))
    assert studio.job.backbone is not first
    assert studio.job.out.name == "outputs"
    record = studio.draw(wish(size=16)).asynchronous.record
    assert json.loads(record.model_dump_json())["backbone"] == str(pipelines["sd3"])


@pytest.mark.parametrize("fails", [False, True])
def test_never_are_two_models_in_memory(wish, pipelines, tmp_path, monkeypatch, fails):
    given = ModelChoice(backbone=str(pipelines["sd3"]), device="cpu")
    studio = Studio.open(wish(size=16), given, tmp_path)
    before = studio.draw(wish(size=16))
    alive, load = [weakref.ref(studio.job.backbone.pipe.transformer)], job_module.load_outline

    def watched(outline):
        assert [model for model in alive if model() is not None] == []
        backbone = load(outline)
        alive.append(weakref.ref(backbone.pipe.transformer))
        if fails and outline.name == str(pipelines["flux"]):
            raise AsyncDiffError("it is damaged")
        return backbone

    monkeypatch.setattr(job_module, "load_outline", watched)
    if not fails:
        studio.switch(str(pipelines["flux"]))
        assert studio.job.backbone.name == str(pipelines["flux"])
        return
    with pytest.raises(AsyncDiffError, match="it is damaged"):
        studio.switch(str(pipelines["flux"]))
    assert studio.job.backbone.name == str(pipelines["sd3"])
    assert len(alive) == 3
    again = studio.draw(wish(size=16))
    assert [pixels(take) for take in again.takes] == [pixels(take) for take in before.takes]
    assert again.asynchronous.record == before.asynchronous.record


def test_what_cannot_be_drawn_is_refused_before(studio, wish, drawn):
    with pytest.raises(InputError, match="needs a multiple of"):
        studio.draw(wish(size=33))
    assert drawn == []


def test_words_that_are_not_known_are_told(studio, wish):
    (warning,) = studio.warnings(studio.plan(wish(prompts=("a zeppelin",))))
    assert "mini does not know 'zeppelin'" in warning
