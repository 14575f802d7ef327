"""`asyncdiff push`, and what it made drawn with: to the hub and back again."""

import json
from pathlib import Path

import pytest
import torch

from asyncdiff_cli.engine import LearnedDeviation, Schedule
from asyncdiff_cli.engine.drawing.provenance import read_provenance
from tests.helpers.modules import save_module
from tests.helpers.reporting import make_run

SCHEDULE = Schedule(deviations=(0.5, 0.25), steps=3, made={"by": "calibration"})


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    save_module(make_run(path) / "tpm")
    return path


def drawn_again(draw, asyncdiff, image):
    """Whether --from draws the same bytes, wherever a branch is by now."""
    again = asyncdiff("sample", "--from", image["path"], "--out", "again", "--json").json
    (path,) = (found["path"] for found in again["images"])
    return Path(path).read_bytes() == Path(image["path"]).read_bytes()


def test_a_module_goes_up_and_draws_from_there(asyncdiff, draw, hub, run):
    pushed = asyncdiff("push", run, "alice/tpm", "--license", "mit", "--json")
    assert pushed.code == 0, pushed.err
    assert set(pushed.json["files"]) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "training.png",
    }
    assert pushed.json["place"] == f"alice/tpm@{pushed.json['commit']}"
    assert "asyncdiff histogram" in pushed.err  # what would make the card whole
    (image,) = draw("a cat", "--tpm", "alice/tpm", "--json").json["images"]
    policy = read_provenance(image["path"]).policy
    assert policy["source"] == pushed.json["place"]
    here = LearnedDeviation.load(run / "tpm")
    assert policy["fingerprint"] == here.fingerprint
    save_module(run / "tpm", seed=2)
    replaced = asyncdiff("push", run, "alice/tpm", "--license", "mit", "--replace", "--json").json
    assert replaced["commit"] != pushed.json["commit"]
    assert drawn_again(draw, asyncdiff, image)
    there = LearnedDeviation.load("alice/tpm").tpm
    assert torch.equal(there.readout, LearnedDeviation.load(run / "tpm").tpm.readout)


def test_a_schedule_goes_up_and_draws_from_there(asyncdiff, draw, hub):
    SCHEDULE.save("s.json")
    pushed = asyncdiff("push", "s.json", "alice/s", "--json").json
    assert set(pushed["files"]) == {"README.md", "schedule.json", "schedule.png"}
    (image,) = draw("a cat", "--policy", "calibrated:alice/s@1.5", "--json").json["images"]
    record = read_provenance(image["path"])
    assert (record.policy["source"], record.gamma) == (pushed["place"], 1.5)
    assert image["deviations"] == [0.5, 0.25]
    hub.repositories.clear()
    assert drawn_again(draw, asyncdiff, image)


def test_a_dry_run_shows_what_would_go_up(asyncdiff, hub):
    SCHEDULE.save("s.json")
    shown = asyncdiff("push", "s.json", "alice/s", "--license", "mit", "--dry-run", "--json").json
    assert shown["folder"] == "cards/s"
    assert shown["files"] == {p.name: p.stat().st_size for p in Path("cards/s").iterdir()}
    assert Schedule.load("cards/s/schedule.json") == SCHEDULE
    assert hub.asked == []
    card = Path("cards/s/README.md")
    assert "license: mit" in card.read_text()
    card.write_text("mine")
    again = asyncdiff("push", "s.json", "alice/s", "--dry-run")
    assert again.code == 2
    assert "cards/s/README.md is there and holds something else: give another --out" in again.err
    assert card.read_text() == "mine"


def test_paths_of_this_machine_stay_here(asyncdiff, hub):
    made = {"command": "asyncdiff calibrate --prompts /home/alice/secret/p.txt"}
    SCHEDULE.model_copy(update={"made": made}).save("s.json")
    outcome = asyncdiff("push", "s.json", "alice/s", "--dry-run", "--out", "folder")
    assert "folders of this machine were left out of the paths in schedule.json" in outcome.err
    texts = [Path("folder", name).read_text() for name in ("README.md", "schedule.json")]
    assert not any("secret" in text for text in texts)
    assert json.loads(texts[1])["made"] == {"command": "asyncdiff calibrate --prompts …/p.txt"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("s.json", "alice"), "'alice' does not name a repository"),
        (("none", "alice/s"), "there is no file or directory none"),
        (("s.json", "alice/s", "--out", "d"), "give --dry-run too"),
        (("s.json", "alice/s", "--create-pr", "--replace"), "leave --replace out"),
        (("s.json", "bob/s"), "this token may not write to bob/s"),
    ],
)
def test_what_cannot_be_is_one_line(asyncdiff, hub, arguments, line):
    SCHEDULE.save("s.json")
    outcome = asyncdiff("push", *arguments, "--license", "mit")
    assert outcome.code == (1 if "token" in line else 2)
    assert outcome.out == ""
    (said,) = outcome.err.splitlines()
    assert line in said
