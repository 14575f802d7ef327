"""`asyncdiff eval`, `sweep`, `histogram`, `panel` and `merge`, as they are typed."""

import csv
import json
import shutil

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY
from asyncdiff_cli.engine.drawing.parameters import has_parameters
from asyncdiff_cli.engine.drawing.provenance import PanelProvenance, read_provenance
from asyncdiff_cli.engine.evaluation.store import Store

FAST = ("--steps", 2, "--limit", 3, "--rewards", "sharpness", "--images", 2, "--size", 32)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the first test leaves its store for the others."""
    return tmp_path_factory.mktemp("kept") / "store"


@pytest.fixture
def evaluated(asyncdiff, kept, tmp_path):
    """A store of three policies, and what was told of it."""
    told = kept.with_suffix(".json")
    if not told.exists():
        policies = "baseline,fixed:0.5,fixed:0.5@2"
        outcome = asyncdiff("eval", "--policies", policies, *FAST, "--out", "store", "--json")
        assert (outcome.code, outcome.err) == (0, "")
        shutil.copytree(tmp_path / "store", kept)
        told.write_text(outcome.out)
    else:
        shutil.copytree(kept, tmp_path / "store")
    return json.loads(told.read_text())


def test_eval_reports_every_row_beside_the_baseline(evaluated, tmp_path):
    rows = {(row["policy"], row["gamma"]): row for row in evaluated["rows"]}
    assert list(rows) == [("baseline", 1), ("fixed:0.5", 1), ("fixed:0.5", 2)]
    assert (evaluated["drawn"], evaluated["prompts"], evaluated["partial"]) == (9, 3, 0)
    assert set(rows["baseline", 1]["metrics"]) == {"sharpness", "noise"}
    assert rows["baseline", 1]["metrics"]["sharpness"]["difference"] == 0
    assert rows["fixed:0.5", 1]["metrics"]["sharpness"]["difference"] != 0
    assert rows["fixed:0.5", 1]["mean_deviation"] == 0.5
    with (tmp_path / "store" / "table.csv").open(newline="") as file:
        whole = [row for row in csv.DictReader(file) if not row["category"]]
    assert len(whole) == 3
    assert "fixed:0.5" in (tmp_path / "store" / "table.md").read_text()
    assert r"\begin{tabular}" in (tmp_path / "store" / "table.tex").read_text()


@pytest.mark.parametrize("how", ["--dry-run", "--measure"])
def test_a_dry_run_tells_what_is_yet_to_be_drawn(asyncdiff, evaluated, tmp_path, how):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    policies = "baseline,fixed:0.5,fixed:0.5@2,fixed:1"
    given = ("--policies", policies, *FAST, "--limit", 4, "--num-images", 2, "--out", "store", how)
    outcome = asyncdiff("eval", *given, "--json")
    found = outcome.json
    assert (outcome.code, outcome.err, found["dry_run"]) == (0, "", True)
    assert [row["stored"] for row in found["policies"]] == [3, 3, 3, 0]
    assert {row["images"] for row in found["policies"]} == {8}
    assert (found["prompts"], found["images"], found["stored"]) == (4, 32, 9)
    assert found["denoiser_calls"] == 2 * 2 * (32 - 9)  # of two guided steps
    assert found["rewards"] == ["sharpness", "noise"]
    assert (found["memory_bytes"] is None) == (how == "--dry-run")
    shown = asyncdiff("eval", *given).out
    assert "in the store" in shown
    assert f"denoiser calls  {found['denoiser_calls']}" in shown
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    refused = asyncdiff("eval", *given, "--seed", 7)
    assert (refused.code, "was evaluated with other settings, seed" in refused.err) == (2, True)


def test_eval_compares_the_backbones_own_policy_and_its_modules(asyncdiff):
    outcome = asyncdiff("eval", *FAST, "--limit", 1, "--out", "store", "--json")
    names = [row["policy"] for row in outcome.json["rows"]]
    assert names == ["baseline", "joint", "learned", "lifted", "spectral"]
    refused = asyncdiff("eval", "--backbone", "flux", "--policies", "baseline,learned")
    assert refused.code == 2
    assert "no learned module is shipped for flux" in refused.err


def test_eval_again_draws_nothing_and_more_policies_only_themselves(asyncdiff, evaluated):
    again = asyncdiff(
        "eval", "--policies", "baseline,fixed:0.5,fixed:0.5@2", *FAST, "--out", "store", "--json"
    )
    assert again.json["drawn"] == 0
    assert again.json["rows"] == evaluated["rows"]
    more = asyncdiff(
        "eval", "--policies", "baseline,velocity-scale", *FAST, "--out", "store", "--json"
    )
    assert more.json["drawn"] == 3
    assert [row["policy"] for row in more.json["rows"]][-1] == "velocity-scale"


def test_eval_prints_a_table_and_its_files(asyncdiff, evaluated):
    outcome = asyncdiff("eval", "--policies", "baseline", *FAST, "--out", "store")
    assert outcome.code == 0
    assert "fixed:0.5" in outcome.out
    assert outcome.out.split()[-3:] == [f"store/table.{s}" for s in ("md", "csv", "tex")]


def test_a_policy_without_a_bound_is_in_the_json(asyncdiff):
    outcome = asyncdiff(
        "eval", "--policies", "baseline,detail-daemon", *FAST, "--out", "store", "--json"
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["rows"][1]["policy"] == "detail-daemon"
    assert outcome.json["rows"][1]["bound"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policies", "baselin"), "did you mean 'baseline'"),
        (("--policies", "fixed:0.5"), "add baseline to --policies"),
        (("--policies", "baseline,fixed:0.5,fixed:0.50"), "twice"),
        (("--steps", "two"), "--steps is numbers with commas"),
        (("--steps", "0"), "whole number from 1"),
        (("--gammas", "x"), "--gammas is numbers with commas"),
        (("--dataset", "coco"), "did you mean 'coco2014'"),
        (("--limit", "0"), "whole number from 1"),
        (("--limit", "5000"), "1,022 validation prompts"),
        (("--shard", "2/2"), "from 0 to N"),
        (("--shard", "a"), "a shard is I/N"),
        (("--rewards", "sharp"), "did you mean 'sharpness'"),
        (("--processes", "0"), "whole number from 1"),
        (
            ("--reward-path", f"clip={__file__}"),
            "clip is of none of the rewards mini_judge, mini_clip, ",
        ),
        (("--reward-dtype", "int3"), "unknown dtype 'int3'"),
    ],
)
def test_bad_input_is_one_line(asyncdiff, arguments, message):
    outcome = asyncdiff("eval", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_another_guidance_does_not_go_into_the_same_store(asyncdiff, evaluated):
    outcome = asyncdiff("eval", *FAST, "--guidance", 2, "--policies", "baseline", "--out", "store")
    assert outcome.code == 2
    assert "guidance_scale" in outcome.err


def test_shards_merge_into_what_one_evaluation_is(asyncdiff, evaluated, tmp_path):
    policies = ("--policies", "baseline,fixed:0.5,fixed:0.5@2")
    for shard in (0, 1):
        code = asyncdiff("eval", *policies, *FAST, "--shard", f"{shard}/2", "--out", f"s{shard}")
        assert code.code == 0
    outcome = asyncdiff("merge", "s0", "s1", "--out", "all", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert Store(tmp_path / "all").keys() == Store(tmp_path / "store").keys()
    for ours, theirs in zip(outcome.json["rows"], evaluated["rows"], strict=True):
        mean = ours["metrics"]["sharpness"]["mean"]
        theirs_mean = theirs["metrics"]["sharpness"]["mean"]
        assert mean == pytest.approx(theirs_mean, abs=1e-2)  # a level of 256 may turn
    assert asyncdiff("merge", "s0", "s1", "--out", "all").code == 2


def test_sweep_charts_the_deviations_and_shows_the_images(asyncdiff, tmp_path):
    command = "sweep", "--deviations", "0.5,-0.5", *FAST, "--out", "swept", "--json"
    told = asyncdiff(*command, "--dry-run")
    assert (told.code, told.err, (tmp_path / "swept").exists()) == (0, "", False)
    outcome = asyncdiff(*command)
    assert (outcome.code, outcome.err) == (0, "")
    policies = ["baseline", "fixed:-0.5", "fixed:0.5"]
    assert [row["policy"] for row in outcome.json["rows"]] == policies
    assert {row["policy"]: row["stored"] for row in told.json["policies"]} == dict.fromkeys(
        policies, 0
    )
    assert told.json["images"] == outcome.json["drawn"]
    again = asyncdiff(*command, "--dry-run").json
    assert (again["stored"], again["denoiser_calls"]) == (outcome.json["drawn"], 0)
    for name in ("sweep.png", "sweep.svg", "noise.png", "noise.svg", "panel.png", "table.md"):
        assert f"swept/{name}" in outcome.json["files"]
        assert (tmp_path / "swept" / name).stat().st_size > 0
    panel = read_provenance(tmp_path / "swept" / "panel.png")
    assert isinstance(panel, PanelProvenance)
    assert [len(row) for row in panel.cells] == [3, 3]
    # its charts are drawn anew, in its store and nowhere else
    drawn = (tmp_path / "swept" / "sweep.png").read_bytes()
    (tmp_path / "edited.png").write_text("mine")
    (tmp_path / "swept" / "sweep.png").unlink()
    (tmp_path / "swept" / "sweep.png").symlink_to(tmp_path / "edited.png")
    (tmp_path / "swept" / "panel.png").write_text("an edited one")
    assert asyncdiff(*command).code == 0
    assert (tmp_path / "swept" / "sweep.png").read_bytes() == drawn
    assert read_provenance(tmp_path / "swept" / "panel.png") == panel
    assert (tmp_path / "edited.png").read_text() == "mine"


def test_charts_of_others_are_in_no_ones_way(asyncdiff, tmp_path):
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "sweep.png").write_text("mine")
    outcome = asyncdiff("sweep", "--deviations", "0.5", *FAST, "--out", "swept")
    assert (outcome.code, "swept is there already and no evaluation" in outcome.err) == (2, True)
    assert (tmp_path / "swept" / "sweep.png").read_text() == "mine"


def test_a_sweep_of_the_guard_alone_charts_it_against_nothing(asyncdiff, tmp_path):
    small = ("--steps", 1, "--limit", 1, "--images", 0, "--rewards", "noise")
    outcome = asyncdiff("sweep", "--deviations", "0.5", *small, "--out", "swept", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    charts = {path.name for path in (tmp_path / "swept").glob("*.[ps][nv]g")}
    assert charts == {"sweep.png", "sweep.svg"}


def test_sweep_of_steps_has_a_baseline_for_each(asyncdiff):
    outcome = asyncdiff(
        "sweep", "--policies", "fixed:0.5", "--steps", "1,2", *FAST[2:], "--out", "swept", "--json"
    )
    assert (outcome.code, outcome.err) == (0, "")
    found = [(row["policy"], row["steps"]) for row in outcome.json["rows"]]
    assert found == [("baseline", 1), ("fixed:0.5", 1), ("baseline", 2), ("fixed:0.5", 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to sweep"),
        (("--gammas", "1,2", "--deviations", "0.5"), "not both"),
        (("--bounds", "0.7"), "a bound is 0.5 or 1"),
        (("--deviations", "0.5", "--policies", "learned"), "neither --policies"),
        (("--deviations", "3"), "outside"),
    ],
)
def test_a_sweep_of_nothing_is_bad_input(asyncdiff, arguments, message):
    outcome = asyncdiff("sweep", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_histogram_of_a_store_and_its_numbers(asyncdiff, tmp_path):
    asyncdiff("eval", "--policies", "baseline,time-shift", *FAST, "--out", "store")
    outcome = asyncdiff("histogram", "store", "--out", "h.png", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["files"] == ["h.png", "h.svg", "h.csv"]
    assert outcome.json["policies"]["time-shift"]["n"] == 3
    (last,) = outcome.json["policies"]["time-shift"]["step_sizes"]
    assert last == pytest.approx(mini_grid(2)[-2], abs=1e-6)
    with (tmp_path / "h.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["step"] for row in rows} == {"1"}
    assert sum(int(row["count"]) for row in rows) == 3
    with Image.open(tmp_path / "h.png") as image:
        assert image.width > 500
    (tmp_path / "h.csv").write_text("of another store")
    outcome = asyncdiff("histogram", "store", "--out", "h.png")
    assert outcome.out.split() == ["h-2.png", "h-2.svg", "h-2.csv"]
    assert "h.png is there and holds something else" in outcome.err


def mini_grid(steps):
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(MINI_DIRECTORY / "scheduler")
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.tolist()


def test_histogram_of_fixed_deviations_is_refused(asyncdiff, evaluated):
    outcome = asyncdiff("histogram", "store")
    assert outcome.code == 2
    assert "chooses by the image" in outcome.err
    assert asyncdiff("histogram", "store", "--out", "h.gif").code == 2
    assert asyncdiff("histogram", "nowhere").code == 2


def test_histogram_refuses_what_is_no_run_before_it_draws(asyncdiff, tmp_path, monkeypatch):
    monkeypatch.setattr("asyncdiff_cli.commands.histogram.draw", lambda *_: pytest.fail("drawn"))
    (tmp_path / "run" / "tpm").mkdir(parents=True)
    (tmp_path / "run" / "tpm" / "config.json").write_text("{}")
    assert asyncdiff("recipes", "copy", "mini", "run/recipe.yaml").code == 0
    (tmp_path / "empty").mkdir()
    outcome = asyncdiff("histogram", "run", "empty")
    assert outcome.code == 2
    assert "empty holds neither" in outcome.err


def test_panel_draws_prompts_or_shows_a_store(asyncdiff, evaluated, tmp_path):
    outcome = asyncdiff(
        "panel", "a cat", "a dog", "--policies", "baseline,fixed:1", "--steps", 2, "--out", "p.png",
        "--json",
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    assert [[cell["prompt"] for cell in _own(row)] for row in outcome.json["cells"]] == [
        ["a cat"] * 2,
        ["a dog"] * 2,
    ]
    shown = asyncdiff("panel", "--store", "store", "--rows", "1", "--out", "q.png", "--json")
    other = asyncdiff("panel", "--store", "store", "--out", "q.png")
    assert (other.code, other.out) == (0, "q-2.png\n")
    assert (shown.code, shown.err) == (0, "")
    assert [len(row) for row in shown.json["cells"]] == [3]
    bare = asyncdiff(
        "panel", "--store", "store", "--rows", "1", "--no-parameters", "--out", "r.png"
    )
    assert bare.code == 0
    kept = [has_parameters(name) for name in ("p.png", "q.png", "q-2.png", "r.png")]
    assert kept == [False, True, False, False]  # of one prompt, and unless it is asked not to
    redrawn = asyncdiff("sample", "--from", "p.png", "--out", "again")
    assert redrawn.code == 0
    assert (tmp_path / "again" / "p.png").read_bytes() == (tmp_path / "p.png").read_bytes()


def test_a_panel_is_of_the_images_that_were_kept(asyncdiff, evaluated, tmp_path):
    name = sorted((tmp_path / "store" / "images").iterdir())[-1]
    asyncdiff("sample", "a cat", "--size", 64, "--steps", 2, "--out", "other")
    name.write_bytes(next((tmp_path / "other").glob("*.png")).read_bytes())
    outcome = asyncdiff("panel", "--store", "store", "--out", "p.png")
    assert outcome.code == 1
    assert f"{name.relative_to(tmp_path)} has 64×64 pixels, and " in outcome.err
    assert not (tmp_path / "p.png").exists()


def _own(row):
    return [cell["batch"][cell["index"]] for cell in row]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either PROMPTs"),
        (("a cat", "--store", "."), "give either PROMPTs"),
        (("a cat", "--rows", "1"), "--rows chooses"),
        (("a cat", "--out", "x.jpg"), "a panel is a .png"),
        (("--store", "."), "holds no evaluation"),
    ],
)
def test_a_panel_of_nothing_is_bad_input(asyncdiff, arguments, message):
    outcome = asyncdiff("panel", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
