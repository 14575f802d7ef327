"""The benchmark of a recipe's settings: what its runs are, and what is told of them."""

import json

import pytest
import typer
from typer.testing import CliRunner

from asyncdiff_cli.engine import InputError
from asyncdiff_cli.engine.training.recipe import cost
from benchmarks import trainings
from tests.helpers.training import rows as logged
from tests.helpers.training import settings

NAMED = {trainings.ITSELF: (), "two passes": ("epochs=2",)}


@pytest.fixture(scope="module")
def given(pipelines):
    return [f"backbone={pipelines['sd3']}", *settings({"iterations": 3})]


@pytest.fixture(scope="module")
def done(given, tmp_path_factory):
    """Recipes of two options and two seeds, where they were trained, and the rows."""
    out, own = tmp_path_factory.mktemp("trainings"), trainings.recipes("mini", NAMED, 2, given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainings, "_gained", lambda _: 1.0)  # a few iterations may gain nothing
        return own, out, [*trainings.measured(own, out)]


def test_a_row_is_what_the_runs_of_its_seeds_logged(done):
    own, out, rows = done
    assert [row["option"] for row in rows] == [*NAMED]
    for row in rows:
        assert row["iterations"] == [2, 3]  # every second one, and the last
        for seed, gains in zip((1, 2), row["gains"], strict=True):
            run = out / trainings.slug(row["option"]) / str(seed)
            held_out = [r["held_out"] for r in logged(run) if "held_out" in r and r["iteration"]]
            assert gains == [found["composite"]["mean"] for found in held_out]
    assert rows[0]["gains"][0] != rows[0]["gains"][1]
    assert rows[0]["gains"] != rows[1]["gains"]
    assert [recipe.epochs for recipes in own.values() for recipe in recipes] == [1, 1, 2, 2]


def test_runs_that_are_there_are_read(done, monkeypatch):
    own, out, rows = done
    monkeypatch.setattr(trainings, "finish", None)
    assert trainings.curve(own[trainings.ITSELF][0], out / "the-recipe" / "1") == dict(
        zip(rows[0]["iterations"], rows[0]["gains"][0], strict=True)
    )


def test_a_run_of_other_settings_is_not_read_for_one(done):
    own, out, _ = done
    other = own[trainings.ITSELF][0].model_copy(update={"epochs": 2})
    with pytest.raises(InputError, match="was trained with another epochs: give another --out"):
        trainings.curve(other, out / "the-recipe" / "1")


def test_calls_are_those_of_the_rollouts_until_a_share_of_the_first_option(monkeypatch, tmp_path):
    (recipe,) = trainings.recipes("mini", {"a": ()}, 1, ["iterations=10"])["a"]
    curves = iter([{5: 0.1, 10: 0.3}, {5: 0.2, 10: 0.1}, {5: 0.19, 10: 0.3}, {5: 0.0, 10: 0.0}])
    monkeypatch.setattr(trainings, "curve", lambda *_: next(curves))
    both = {"a": [recipe, recipe], "b": [recipe, recipe]}  # a gains 0.2 in the mean at its end
    first, second = trainings.measured(both, tmp_path)
    every = cost(recipe).forward_passes
    assert first["calls"] == pytest.approx([0.5 * every * (1 + 0.08 / 0.2), 0.5 * every * 0.9])
    assert second["calls"] == pytest.approx([0.5 * every * 0.18 / 0.19, every])
    assert (first["reached"], second["reached"]) == (2, 1)


def test_a_table_has_the_mean_and_every_seed():
    row = {
        "option": "a", "iterations": [10], "gains": [[0.25], [0.15]], "calls": [3000.4, 1000],
        "reached": 2,
    }  # fmt: skip
    assert trainings.to_markdown([row]).splitlines()[-1] == (
        "| a | +0.200 (+0.150, +0.250) | 2,000 (1,000, 3,000) | 2 |"
    )


def test_options_are_names_with_settings():
    own = trainings.parse_options(["start at spectral=start=spectral epochs=1"])
    assert own == {"the recipe": (), "start at spectral": ["start=spectral", "epochs=1"]}
    assert trainings.parse_options(()) is trainings.OPTIONS
    trainings.recipes("mini-lifted", trainings.OPTIONS, 1, ())
    for wrong in ("a", "=start=spectral", "a=spectral"):
        with pytest.raises(InputError, match="--option is NAME="):
            trainings.parse_options([wrong])


def test_what_gains_nothing_is_no_measure(monkeypatch, tmp_path):
    (recipe,) = trainings.recipes("mini", {"a": ()}, 1, ())["a"]
    monkeypatch.setattr(trainings, "curve", lambda *_: {60: -0.1})
    with pytest.raises(InputError, match="gains nothing"):
        next(trainings.measured({"a": [recipe]}, tmp_path))


def test_the_command_writes_what_it_prints(done, given, monkeypatch):
    _, out, rows = done
    monkeypatch.setattr(trainings, "_gained", lambda _: 1.0)
    app = typer.Typer()
    app.command()(trainings.main)
    options = ["--recipe", "mini", "--seeds", "2", "--option", "two passes=epochs=2"]
    outcome = CliRunner().invoke(app, [*given, "--out", str(out), *options])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads((out / "trainings.json").read_text()) == rows
    assert (out / "trainings.md").read_text() == trainings.to_markdown(rows)
    assert "two passes" in outcome.stdout
