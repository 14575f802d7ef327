"""`asyncdiff calibrate` and `asyncdiff distill` by running them on a tiny pipeline."""

import os
import shlex
from pathlib import Path

import pytest

from asyncdiff_cli.engine import Schedule
from asyncdiff_cli.engine.downloads import file_sha256
from asyncdiff_cli.engine.rewards.embedded import WEIGHTS_FILE, directory_of
from tests.helpers.interrupting import stopped_after
from tests.helpers.modules import save_module

SMALL = (
    *("--steps", 3, "--size", 16, "--split", 2, "--candidates", 3, "--batch-size", 2),
    *("--limit", 2, "--held-out", 2),
)


@pytest.fixture(scope="session")
def searched(tmp_path_factory, pipelines):
    """Options of the smallest search."""
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text("\n".join(f"a picture of {n}" for n in range(60)))
    return *SMALL, "--dataset", prompts, "--backbone", pipelines["sd3"], "--device", "cpu"


@pytest.fixture(scope="session")
def module(tmp_path_factory):
    return save_module(tmp_path_factory.mktemp("module"))


@pytest.fixture(params=["calibrate", "distill"])
def name(request):
    """Each command in turn."""
    return request.param


@pytest.fixture
def search(name, asyncdiff, searched, module):
    """The command as a call that takes further options."""
    words = ["calibrate"] if name == "calibrate" else ["distill", module]
    return lambda *options: asyncdiff(*words, *searched, *options)


@pytest.fixture(scope="session")
def finished():
    """What each command said and wrote without further options."""
    return {}


@pytest.fixture
def whole(name, search, finished, tmp_path_factory):
    """What the command says, and its file, which is somewhere else; it is run once for all."""
    if name not in finished:
        path = tmp_path_factory.mktemp(name) / "whole.json"
        finished[name] = search("--out", path), path
    return finished[name]


def test_it_writes_a_schedule_that_draws(search, draw):
    outcome = search("--out", "new/a.json", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    schedule = Schedule.load("new/a.json")
    assert found["file"] == "new/a.json"
    assert tuple(found["deviations"]) == schedule.deviations
    assert (schedule.steps, schedule.height, schedule.shift) == (3, 16, 3.0)
    assert len(schedule.cond_sigmas) == 3
    assert schedule.made["images"] == 2
    assert schedule.made["error"] <= schedule.made["synchronous_error"]
    assert os.listdir("new") == ["a.json"]
    assert "D_1 = " in outcome.err
    assert "held-out distance" in outcome.err
    drawn = draw("a cat", "--policy", "schedule:new/a.json", "--json").json["images"][0]
    assert drawn["deviations"] == pytest.approx(schedule.deviations)
    assert drawn["cond_sigmas"] == pytest.approx(schedule.cond_sigmas)


def test_it_prints_a_table_of_held_out_prompts(whole):
    outcome, path = whole
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == str(path)
    rows = Schedule.load(path).held_out["policies"]
    names = [row["policy"] for row in rows]
    assert names[0] == "baseline"
    assert all(name in outcome.out for name in names)
    assert {row["n"] for row in rows} == {2}
    assert all(row["low"] <= row["difference"] <= row["high"] for row in rows)
    assert all(row["spectrum"] >= 0 for row in rows)
    assert names[-1] == "module" or [name.partition(":")[0] for name in names[1:]] == [
        *("spectral", "fixed", "calibrated"),
    ]


def test_without_held_out_prompts_it_is_not_tried(search):
    outcome = search("--out", "a.json", "--held-out", 0)
    assert outcome.code == 0
    assert Schedule.load("a.json").held_out == {}
    assert "distance to many steps" not in outcome.out


@pytest.mark.parametrize("found", [1, 3, 6])
def test_a_stopped_search_goes_on_to_the_same_bytes(search, whole, found):
    """6 is all that a distillation keeps, before its output."""
    uninterrupted, path = whole
    with stopped_after(found):
        begun = search("--out", "a.json")
    assert begun.code == 130
    assert os.listdir() == ["a.settled"]
    outcome = search("--out", "a.json")
    assert outcome.code == 0, outcome.err
    settled = [line for line in begun.err.splitlines() if line.startswith("D_")]
    assert settled
    assert not {*settled[:found]} & {*outcome.err.splitlines()}  # they are not searched again
    assert {*begun.err.splitlines(), *outcome.err.splitlines()} >= {*uninterrupted.err.splitlines()}
    assert Path("a.json").read_bytes() == path.read_bytes()
    assert os.listdir() == ["a.json"]


def test_a_search_of_other_settings_is_not_gone_on_with(search):
    with stopped_after(2):
        assert search("--out", "a.json").code == 130
    outcome = search("--out", "a.json", "--seed", 7)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert "a.settled is of a search with other settings" in outcome.err
    assert search("--out", "a.json").code == 0


def test_the_same_command_leaves_its_file_and_another_one_takes_another_name(search):
    assert search("--out", "a.json").code == 0
    before = os.stat("a.json").st_mtime_ns
    again = search("--out", "a.json", "--json")
    assert again.code == 0
    assert again.err == ""
    assert os.stat("a.json").st_mtime_ns == before
    other = search("--out", "a.json", "--seed", 1)
    assert other.code == 0
    assert "a.json is there and holds something else, so it is kept: see a-2.json" in other.err
    assert os.stat("a.json").st_mtime_ns == before
    assert Schedule.load("a-2.json").made["seed"] == 1


def test_a_dry_run_tells_the_cost_and_writes_nothing(search):
    cost = search("--out", "a.json", "--dry-run", "--json").json
    assert cost["dry_run"]
    assert (cost["images"], cost["held_out_images"], cost["steps"]) == (2, 2, 3)
    # searched: two searches and their teacher; tried: its teacher and a run of each policy
    assert cost["evaluations"] in (2 * (6 + 11 + 21 + 12 + 6) + 2 * 18, 2 * (9 + 21) + 2 * 15)
    assert "evaluations" in search("--out", "a.json", "--dry-run").out
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.txt"], "--out: a schedule file ends in .json"),
        (["--out", "."], "."),
        (["--steps", 1], "--steps"),
        (["--limit", 0], "--limit"),
        (["--limit", 1000], "train prompts: ask for at most so many"),
        (["--held-out", -1], "--held-out"),
        (["--held-out", 1000], "validation prompts: ask for at most so many"),
        (["--seed", -1], "--seed"),
        (["--batch-size", 0], "--batch-size"),
        (["--guidance", "nan"], "--guidance"),
        (["--size", "16x24"], "--size"),
        (["--size", 17], "17"),
        (["--split", 1], "split is at least 2"),
        (["--candidates", 2], "candidates is at least 3"),
        (["--objective", "x"], "unknown objective 'x'"),
        (["--solver", "heun"], "evaluates twice a step"),
        (["--dataset", "nowhere.txt"], "unknown prompt source"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_line(search, options, message):
    outcome = search("--out", "a.json", *options)
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert outcome.out == ""


def test_a_schedule_names_the_weights_that_scored_it(search):
    own = directory_of("mini_quality") / WEIGHTS_FILE
    outcome = search("--out", "a.json", "--rewards", "mini_quality")
    assert outcome.code == 0, outcome.err
    weights = {"mini_quality": file_sha256(own)[:16]}
    assert Schedule.load("a.json").made["reward_weights"] == weights


def test_rewards_score_what_is_tried_and_change_no_schedule(search, whole):
    outcome = search("--out", "a.json", "--rewards", "sharpness")
    assert outcome.code == 0, outcome.err
    assert "reward_weights" not in Schedule.load("a.json").made  # formulas have none
    schedule = Schedule.load("a.json")
    assert schedule.deviations == Schedule.load(whole[1]).deviations
    rows = schedule.held_out["policies"]
    assert all([*row["rewards"]] == ["sharpness", "noise"] for row in rows)
    assert rows[0]["rewards"]["sharpness"]["difference"] == 0
    assert outcome.out.count("sharpness") == outcome.out.count("noise") == 1
    if adds := schedule.held_out.get("module_over_schedule"):
        means = {row["policy"]: row["rewards"]["sharpness"]["mean"] for row in rows}
        own = adds["rewards"]["sharpness"]
        assert own["difference"] == pytest.approx(means["module"] - means["distilled"])
        assert own["low"] <= own["difference"] <= own["high"]
        assert "module less its schedule" in outcome.out
    refused = search("--out", "b.json", "--rewards", "sharpness", "--held-out", 0)
    assert refused.code == 2
    assert "--held-out 0" in refused.err


def test_the_detail_at_each_scale_can_be_the_objective(search):
    """Its error is below that of no deviation in the units of the objective."""
    outcome = search("--out", "a.json", "--objective", "spectrum", "--held-out", 0)
    assert outcome.code == 0, outcome.err
    made = Schedule.load("a.json").made
    assert made["objective"] == "spectrum"
    assert 0 <= made["error"] <= made["synchronous_error"]
    assert "--objective spectrum" in made["command"]


def test_a_file_of_prompts_is_one_by_either_option(asyncdiff, searched, tmp_path):
    """A command is recorded so that it can be given again, wherever the result goes."""
    at = searched.index("--dataset")
    prompts, others = searched[at + 1], (*searched[:at], *searched[at + 2 :])
    for option in ("--dataset", "--prompts"):
        given = asyncdiff("calibrate", *others, option, prompts, "--out", f"{option[2:]}.json",
                          "--held-out", 0)  # fmt: skip
        assert given.code == 0, given.err
    assert Path("dataset.json").read_bytes() == Path("prompts.json").read_bytes()
    words = shlex.split(Schedule.load("dataset.json").made["command"])
    assert asyncdiff(*words[1:], "--out", "again.json").code == 0
    assert Path("again.json").read_bytes() == Path("dataset.json").read_bytes()
    refused = asyncdiff("calibrate", "--prompts", prompts, "--dataset", "mini", "--out", "a.json")
    assert refused.code == 2
    assert "'mini' takes no local copy" in refused.err


def test_a_calibrated_policy_takes_what_calibrate_made_alone(asyncdiff, draw, searched, module):
    assert asyncdiff("calibrate", *searched, "--out", "c.json", "--held-out", 0).code == 0
    assert asyncdiff("distill", module, *searched, "--out", "d.json", "--held-out", 0).code == 0
    calibrated = draw("a cat", "--policy", "calibrated:c.json", "--json").json["images"][0]
    given = draw("a cat", "--policy", "schedule:c.json", "--json").json["images"][0]
    assert calibrated["cond_sigmas"] == given["cond_sigmas"]
    refused = draw("a cat", "--policy", "calibrated:d.json")
    assert refused.code == 2
    assert "d.json was not made by calibration: name it schedule:d.json" in refused.err


def test_of_a_run_its_recipe_says_the_rest(asyncdiff, tmp_path, pipelines, module):
    run = tmp_path / "run"
    save_module(run / "tpm")
    (tmp_path / "prompts.txt").write_text("\n".join(f"a picture of {n}" for n in range(60)))
    (run / "recipe.yaml").write_text(
        f"extends: mini\nbackbone: {pipelines['sd3']}\nprompts: {tmp_path / 'prompts.txt'}\n"
        "num_inference_steps: 4\nguidance_scale: 2.0\nsize: 16\nrewards: {sharpness: 1}\n"
    )
    small = SMALL[4:]
    cost = asyncdiff("distill", run, *small, "--out", "a.json", "--dry-run", "--json")
    assert cost.code == 0, cost.err
    assert (cost.json["steps"], cost.json["backbone"]) == (4, str(pipelines["sd3"]))
    assert cost.json["module"] == str(run / "tpm")
    outcome = asyncdiff("distill", run, *small, "--out", "a.json", "--steps", 3, "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["steps"], outcome.json["guidance_scale"]) == (3, 2.0)
    assert outcome.json["made"]["module"] == str(run / "tpm")


def test_a_dry_run_says_that_a_module_would_be_of_the_hub(asyncdiff):
    cost = asyncdiff("distill", "runs/mine", "--out", "a.json", "--dry-run", "--json")
    assert cost.json["module"] == "runs/mine (of the hub: there is no such directory)"


@pytest.mark.parametrize("source", ["nowhere", "flux", "."])
def test_what_is_no_module_is_refused(asyncdiff, source):
    outcome = asyncdiff("distill", source, "--out", "a.json")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
