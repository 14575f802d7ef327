"""What a file names is used where it is, found from any directory, and never downloaded."""

import json
import socket
from pathlib import Path

import pytest

from asyncdiff_cli.engine import TimestepPredictionModule
from asyncdiff_cli.engine.training.recipe_files import load_recipe, to_yaml
from asyncdiff_cli.engine.training.run_options import find_run
from tests.helpers.modules import randomised
from tests.helpers.pictures import with_record


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def assert_not_fetched(outcome, name, option):
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert f"{name}, which is not on this machine" in line
    assert option in line


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("changes", "name", "option"),
    [
        ({"backbone": "someone/model"}, "someone/model", "--backbone someone/model"),
        ({"backbone": "qwen-image"}, "Qwen/Qwen-Image", "--backbone qwen-image"),
        ({"lora": ["someone/style@0.5"]}, "someone/style", "--lora someone/style@0.5"),
        ({"policy": {"name": "learned", "source": "some/tpm"}}, "some/tpm", "--tpm"),
        ({"policy": {"name": "learned", "source": "gone/tpm/x"}}, "gone/tpm/x", "--tpm"),
        ({"policy": {"name": "learned", "source": "~nobody-here/x"}}, "~nobody-here/x", "--tpm"),
    ],
)
def test_what_a_picture_names(asyncdiff, picture, changes, name, option, dry):
    record = asyncdiff("inspect", picture, "--json").json
    with_record(picture, json.dumps({**record, **changes}))
    assert_not_fetched(asyncdiff("sample", "--from", picture, *dry), name, option)


def test_what_one_picture_of_a_panel_names(asyncdiff, picture):
    record = asyncdiff("inspect", picture, "--json").json
    other = {**record, "policy": {"name": "learned", "source": "some/tpm"}}
    with_record(picture, json.dumps({"cells": [[record, other]]}, separators=(",", ":")))
    assert_not_fetched(asyncdiff("sample", "--from", picture), "some/tpm", "--tpm")


def test_another_policy_needs_no_recorded_module(asyncdiff, picture):
    record = asyncdiff("inspect", picture, "--json").json
    changed = {**record, "policy": {"name": "learned", "source": "some/tpm"}}
    with_record(picture, json.dumps(changed))
    assert asyncdiff("sample", "--from", picture, "--deviation", 0.5, "--out", "o").code == 0


def test_what_a_run_names(asyncdiff, tmp_path):
    recipe = load_recipe("mini", ["backbone=someone/model"])
    (tmp_path / "run" / "tpm").mkdir(parents=True)
    (tmp_path / "run" / "tpm" / "config.json").write_text("{}")
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(recipe))
    for command in (("train", "--resume", "run"), ("histogram", "run")):
        assert_not_fetched(asyncdiff(*command), "someone/model", "--backbone someone/model")


def test_a_module_is_found_from_another_directory(asyncdiff, picture, tmp_path, monkeypatch):
    tpm = TimestepPredictionModule(16, 256, 256, width=16, layers=1, heads=2)  # mini's channels
    randomised(tpm).save_pretrained("real")
    Path("mine").symlink_to("real")
    drawn = asyncdiff("sample", "a cat", "--steps", 2, "--tpm", "mine", "--json").json
    path = tmp_path / drawn["images"][0]["path"]
    source = asyncdiff("inspect", path, "--json").json["policy"]["source"]
    assert source == str(tmp_path / "mine")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert asyncdiff("sample", "--from", path).code == 0
    assert (Path("outputs") / path.name).read_bytes() == path.read_bytes()


def test_a_run_s_places_are_those_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a cat\n")
    recipe, _ = find_run("mini", None, ["prompts=p.txt"], None, Path("r"), None)
    assert recipe.prompts == str(tmp_path / "p.txt")
    assert recipe.backbone == "mini"


def test_prompts_that_are_gone_can_be_told(asyncdiff, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(load_recipe("mini", ["prompts=p.txt"])))
    outcome = asyncdiff("train", "--resume", "run")
    assert outcome.code == 2
    assert "p.txt, and there is no such file: give --prompts FILE with its place" in outcome.err
    (tmp_path / "q.txt").write_text("a cat\n")
    recipe, _ = find_run(None, None, [], tmp_path / "run", None, tmp_path / "q.txt")
    assert recipe.prompts == "p.txt"  # what the run's checkpoints were made with
