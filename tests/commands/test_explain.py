"""`asyncdiff explain` by running it."""

from itertools import pairwise

import pytest


@pytest.fixture
def explain(asyncdiff):
    """What `asyncdiff explain` says as JSON."""

    def call(*arguments):
        outcome = asyncdiff("explain", *arguments, "--json")
        assert outcome.code == 0, outcome.err
        return outcome.json

    return call


def test_it_says_what_a_constant_deviation_is_worth(explain):
    """The numbers of docs/theory.md; transfer's own tests derive them."""
    found = explain("--steps", "10", "--shift", "3", "--policy", "fixed:0.78,fixed:0.5,baseline")
    assert (found["steps"], found["solver"], len(found["grid"])) == (10, "euler", 11)
    best, half, baseline = found["policies"]
    assert (best["policy"], half["policy"], baseline["policy"]) == (
        *("fixed:0.78", "fixed:0.5", "baseline"),
    )
    assert best["error"] == pytest.approx(0.0091, abs=5e-5)
    assert (best["worth_steps"], baseline["worth_steps"]) == (19, 10)
    assert half["residual_noise"] == pytest.approx(5.5, abs=0.05)
    assert half["deviations"] == [0.5] * 9
    assert baseline["cond_sigmas"] == found["grid"][:-1]
    std, factor = baseline["factors"][1]
    assert factor / std == pytest.approx(0.87, abs=0.005)


def test_gamma_scales_deviations_and_velocities(explain):
    found = explain("--policy", "fixed:0.5@2,fixed:1,detail-daemon:0.1,velocity-scale:1")
    doubled, whole, daemon, unscaled = found["policies"]
    assert doubled["policy"] == "fixed:0.5@2"
    assert doubled["cond_sigmas"] == whole["cond_sigmas"]
    assert doubled["error"] == whole["error"]
    assert unscaled["error"] == pytest.approx(0.0282, abs=5e-5)
    assert daemon["error"] != unscaled["error"]


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp", "unipc"])
def test_a_backbone_has_its_own_grid_and_steps(explain, solver):
    found = explain("--backbone", "mini", "--solver", solver, "--policy", "baseline")
    assert found["solver"] == solver
    assert len(found["grid"]) == found["steps"] + 1
    evaluations = 2 * found["steps"] - 1 if solver == "heun" else found["steps"]
    assert len(found["evaluated"]) == len(found["policies"][0]["cond_sigmas"]) == evaluations


def test_it_writes_a_chart_and_its_numbers_and_replaces_no_other(explain, tmp_path):
    chart = tmp_path / "detail.png"
    first = explain("--steps", "4", "--out", str(chart))
    assert first["files"] == [str(chart.with_suffix(end)) for end in (".png", ".svg", ".json")]
    kept = chart.read_bytes()
    assert explain("--steps", "4", "--out", str(chart))["files"] == first["files"]
    assert chart.read_bytes() == kept
    other = explain("--steps", "5", "--out", str(chart))
    assert other["files"][0] == str(tmp_path / "detail-2.png")
    assert chart.read_bytes() == kept


def test_it_says_why_a_chart_has_another_name(asyncdiff, tmp_path):
    chart = tmp_path / "detail.png"
    chart.with_suffix(".json").write_text("mine")
    outcome = asyncdiff("explain", "--steps", 2, "--out", chart)
    assert f"a file beside {chart} holds something else, so it is kept" in outcome.err
    assert not chart.exists()
    assert (tmp_path / "detail-2.png").exists()


def test_it_prints_a_table_of_times(asyncdiff):
    outcome = asyncdiff("explain", "--steps", 2, "--policy", "fixed:0.5")
    assert outcome.code == 0
    assert "t* of fixed:0.5" in outcome.out
    assert "0.625" in outcome.out  # of 1 and 0.75
    said = [line.partition(":")[0] for line in outcome.out.splitlines()]
    assert {"error", "worth", "noise left", "t"} <= {*said}


def test_a_backbones_reliance_on_the_time_is_measured(explain, pipelines, tmp_path, asyncdiff):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a picture of {n}" for n in range(9)))
    asked = "--backbone", pipelines["sd3"], "--size", 16, "--steps", 3, "--dataset", prompts
    asked = *asked, "--policy", "baseline", "--reliance", 2, "--device", "cpu"
    found = explain(*asked)
    times = [(one["sigma"], one["cond_sigma"]) for one in found["reliance"]]
    assert times == list(pairwise(found["evaluated"]))
    assert all(one["change"] > 0 and one["expected"] > 0 for one in found["reliance"])
    assert explain(*asked) == found
    assert "x̂0 changes by" in asyncdiff("explain", *asked).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "learned"], "chooses by the picture"),
        (["--policy", "time-shift"], "chooses by the picture"),
        (["--policy", "fixed:2"], "outside"),
        (["--shift", "0"], "shift is a number above 0"),
        (["--shift", "nan"], "shift is a number above 0"),
        (["--shift", "2", "--backbone", "mini"], "leave it or --backbone out"),
        (["--size", "64"], "--size is of a backbone: give --backbone"),
        (["--shift", "2", "--grid", "uniform"], "--grid uniform has no shift"),
        (["--dtype", "bf16"], "--dtype is of a backbone: give --backbone"),
        (["--reliance", "2"], "--reliance is of a backbone: give --backbone"),
        (["--backbone", "mini", "--reliance", "0"], "--reliance"),
        (["--backbone", "mini", "--reliance", "1", "--solver", "heun"], "evaluates twice a step"),
        (["--steps", "0"], "number of steps"),
        (["--solver", "rk4"], "unknown scheduler"),
        (["--grid", "even"], "unknown grid"),
        (["--out", "detail.txt"], "detail.txt"),
        (["--backbone", "mini", "--size", "65"], "65"),
    ],
)
def test_what_cannot_be_explained_is_refused(asyncdiff, arguments, message):
    outcome = asyncdiff("explain", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
