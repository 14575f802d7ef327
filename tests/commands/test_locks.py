"""Every command that writes refuses a directory that another one is writing to."""

import os

import pytest

from asyncdiff_cli.engine.drawing import job
from asyncdiff_cli.engine.evaluation import scoring
from asyncdiff_cli.engine.evaluation import start as evaluation_start
from asyncdiff_cli.engine.locks import hold
from asyncdiff_cli.engine.training import start as training_start
from asyncdiff_cli.engine.training.recipe_files import load_recipe, to_yaml
from tests.helpers.stores import begun, row


@pytest.mark.parametrize(
    "command",
    [
        ("sample", "a cat", "--out", "notes.txt/below"),
        ("eval", "--limit", 1, "--out", "notes.txt/below"),
        ("train", "--recipe", "mini", "--out", "notes.txt/below"),
        ("panel", "a cat", "--out", "notes.txt/panel.png"),
        ("histogram", "store", "--out", "notes.txt/histogram.png"),
        ("score", "store", "--csv", "notes.txt/scores.csv"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_loaded(
    asyncdiff, tmp_path, no_model, monkeypatch, command
):
    monkeypatch.setattr(scoring, "load_reward", None, raising=False)
    (tmp_path / "notes.txt").write_text("mine")
    outcome = asyncdiff(*command)
    assert outcome.code in (1, 2)
    assert outcome.err.startswith("error: cannot write ")
    assert "ot a directory" in outcome.err
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture
def no_model(monkeypatch):
    """Nothing is loaded."""
    for module in (evaluation_start, job, training_start):
        for name in ("load_outline", "open_canvas", "load_prompts"):
            monkeypatch.setattr(module, name, None, raising=False)


@pytest.mark.parametrize(
    "command",
    [
        ("sample", "a cat"),
        ("train", "--recipe", "mini"),
        ("train", "--resume", "out"),
        ("eval", "--limit", 1),
        ("eval", "--limit", 1, "--guidance", 3, "--shard", "2/3"),
        ("sweep", "--gammas", "1,2"),
        ("merge", "store"),
    ],
)
def test_a_directory_that_is_in_use_is_refused_at_once(asyncdiff, tmp_path, no_model, command):
    begun(tmp_path / "store").write([row()])
    if "--resume" in command:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "recipe.yaml").write_text(to_yaml(load_recipe("mini")))
    where = () if "--resume" in command else ("--out", "out")
    shard = None if command[0] in ("sample", "train") else (0, 1)
    with hold(tmp_path / "out", shard):
        outcome = asyncdiff(*command, *where)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: out is being written by process {os.getpid()} on ")
    assert outcome.err.count("\n") == 1
