"""`asyncdiff spectrum` by running it on a tiny pipeline."""

import os
from pathlib import Path

import pytest

from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from tests.helpers.interrupting import stopped_after

SMALL = ("--steps", 2, "--size", 16, "--batch-size", 1, "--limit", 2)


@pytest.fixture
def measure(asyncdiff, tmp_path_factory, pipelines):
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text("\n".join(f"a picture of {n}" for n in range(9)))
    given = *SMALL, "--dataset", prompts, "--backbone", pipelines["sd3"], "--device", "cpu"
    return lambda *options: asyncdiff("spectrum", *given, *options)


def test_what_it_writes_is_drawn_with_and_explained(measure, draw, asyncdiff):
    outcome = measure("--out", "new/a.json", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["file"] == "new/a.json"
    assert "2 of 2 pictures measured" in outcome.err
    measured = MeasuredSpectrum.load("new/a.json")
    assert (measured.steps, measured.height, measured.made["images"]) == (2, 16, 2)
    assert measured.made["command"].startswith("asyncdiff spectrum --backbone")
    assert "--split" not in measured.made["command"]
    drawn = draw("a cat", "--policy", "spectral:new/a.json", "--json").json["images"][0]
    asked = "--backbone", "mini", "--policy", "baseline,spectral:new/a.json"
    plain, known = (
        asyncdiff("explain", *asked, *more, "--json").json["policies"]
        for more in ((), ("--spectrum", "new/a.json"))
    )
    assert known[0]["error"] != plain[0]["error"]
    assert known[1]["error"] < known[0]["error"]
    assert any(drawn["deviations"])


def test_a_stopped_measurement_goes_on_to_the_same_bytes(measure):
    whole = measure("--out", "whole.json")
    assert "cycles per image" in whole.out
    assert whole.out.splitlines()[-1] == "whole.json"
    with stopped_after(1):
        assert measure("--out", "a.json").code == 130
    assert sorted(os.listdir()) == ["a.settled", "whole.json"]
    outcome = measure("--out", "a.json")
    assert "1 of 2 pictures" not in outcome.err
    assert Path("a.json").read_bytes() == Path("whole.json").read_bytes()
    assert measure("--out", "a.json").err == ""


def test_a_dry_run_tells_the_cost_and_writes_nothing(measure):
    cost = measure("--out", "a.json", "--dry-run", "--json").json
    assert (cost["images"], cost["steps"], cost["evaluations"]) == (2, 2, 4)
    assert os.listdir() == []


def test_it_draws_in_four_times_the_usual_steps(asyncdiff):
    cost = asyncdiff("spectrum", "--out", "a.json", "--dry-run", "--json").json
    usual = asyncdiff("calibrate", "--out", "a.json", "--dry-run", "--json").json
    assert cost["steps"] == 4 * usual["steps"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.txt"], "--out: a spectrum file ends in .json"),
        (["--out", "a.json", "--solver", "heun"], "heun evaluates twice a step"),
        (["--out", "a.json", "--limit", 100], "100"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(measure, options, message):
    outcome = measure(*options)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_another_kind_of_file_is_no_spectrum(measure, asyncdiff):
    Path("a.json").write_text('{"deviations": [0.5], "steps": 2}')
    for words in (["--spectrum", "a.json"], ["--policy", "spectral:a.json"]):
        outcome = asyncdiff("explain", *words)
        assert outcome.code == 2
        assert "frequency" in outcome.err
