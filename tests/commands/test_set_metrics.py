"""`eval --set-metrics`: one value per policy, from features that stay in the store."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from asyncdiff_cli.app import run
from asyncdiff_cli.engine.evaluation.set_metrics import fid_judge
from asyncdiff_cli.engine.evaluation.set_metrics.group import SetMetricGroup
from asyncdiff_cli.engine.evaluation.set_metrics.reference import find_reference
from asyncdiff_cli.engine.evaluation.set_metrics.spectrum import spectra
from asyncdiff_cli.engine.rewards.mini_quality import to_pixels

TEXTS = ("a cat", "a dog", "an owl", "a bee")


def spectrum_of(files, side=16):
    """The mean spectrum of the central squares."""
    images = []
    for file in files:
        image = Image.open(file).convert("RGB")
        left = (image.width - side) // 2
        images.append(to_pixels(image.crop((left, 0, left + side, side))))
    return spectra(torch.stack(images)).double().mean(0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five pictures to compare with, wider than high."""
    path, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(5):
        levels = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(levels).save(path / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def options(pipelines, judge_directory, photos, tmp_path_factory):
    """Four prompts with two policies, by both metrics that need no download."""
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text("\n".join(TEXTS))
    return {
        **{"backbone": pipelines["sd3"], "dataset": prompts, "steps": 2, "size": 16},
        **{"policies": "baseline,fixed:0.5", "rewards": "sharpness", "images": 4},
        **{"guidance": 1, "set-metrics": "spectrum,fid_judge", "reference": photos},
        **{"reward-path": f"fid_judge={judge_directory}", "out": "store"},
    }


def command(options):
    return ["eval", *(f"--{name}={value}" for name, value in options.items() if value is not None)]


@pytest.fixture
def evaluate(asyncdiff, options):
    return lambda *arguments, **changes: asyncdiff(*command({**options, **changes}), *arguments)


@pytest.fixture(scope="module")
def evaluated(options, tmp_path_factory):
    """A store; shared by the tests, so leave it as it is."""
    path = tmp_path_factory.mktemp("evaluated") / "store"
    assert run(command({**options, "out": path})) == 0
    return path


def test_a_policy_has_one_value_in_every_kind_of_table(evaluate, asyncdiff, photos, tmp_path):
    outcome = evaluate("--json")
    assert outcome.code == 0, outcome.err
    assert "fid_judge fits 32 features to 4 pictures" in outcome.err
    baseline, fixed = outcome.json["rows"]
    drawn = sorted((tmp_path / "store" / "images").glob("*fixed-0.5*.png"))
    apart = spectrum_of(drawn) - spectrum_of(sorted(photos.iterdir()))
    value = apart.square().mean().sqrt().item()
    found = fixed["metrics"]["spectrum"]
    assert (found["mean"], found["n"]) == (pytest.approx(value, rel=1e-6), 4)
    own = baseline["metrics"]["spectrum"]["mean"]
    assert found["difference"] == pytest.approx(value - own, abs=1e-9)
    assert found["low"] < found["difference"] < found["high"]
    shared = outcome.json["settings"]["set_metrics"]["spectrum"]
    assert shared["reference_images"] == 5
    columns = (tmp_path / "store" / "table.csv").read_text().splitlines()[0]
    assert "spectrum,spectrum_difference,spectrum_low,spectrum_high,spectrum_n" in columns
    table = (tmp_path / "store" / "table.md").read_text()
    assert "distance of all 4 pictures to 5 of the reference" in table
    assert "| spectrum error, dB ↓ |" in table
    assert r"dB $\downarrow$" in (tmp_path / "store" / "table.tex").read_text()
    assert asyncdiff("report", "store").code == 0
    page = (tmp_path / "store" / "report.html").read_text()
    assert f"{value:.3f}" in page
    assert "--set-metrics spectrum,fid_judge" in page
    assert "fits 32 features to 4 pictures" in page


def test_the_lowest_value_is_the_best(evaluate, tmp_path):
    rows = evaluate("--json", **{"set-metrics": "spectrum", "reward-path": None}).json["rows"]
    best = min(rows, key=lambda row: row["metrics"]["spectrum"]["mean"])
    value = f"{best['metrics']['spectrum']['mean']:.3f}"
    assert f"**{value}**" in (tmp_path / "store" / "table.md").read_text()


def test_what_was_drawn_is_not_looked_at_again(evaluate, asyncdiff, tmp_path, monkeypatch):
    first = evaluate("--json", "--limit=2")
    whole = evaluate("--json").json
    assert (first.json["drawn"], whole["drawn"]) == (4, 4)

    def fail(*_):
        raise AssertionError("a picture was looked at")

    monkeypatch.setattr(fid_judge.FIDJudge, "_features", fail)
    again = evaluate("--json").json
    assert (again["drawn"], again["rows"]) == (0, whole["rows"])
    (tmp_path / "store" / "table.md").unlink()
    assert asyncdiff("report", "store").code == 0


def test_shards_are_merged_with_their_reference(evaluate, asyncdiff, tmp_path):
    whole = evaluate("--json").json
    for shard in ("0/2", "1/2"):
        assert evaluate(out=f"s{shard[0]}", shard=shard).code == 0
    merged = asyncdiff("merge", "s0", "s1", "--out", "merged", "--json").json
    for ours, theirs in zip(merged["rows"], whole["rows"], strict=True):
        for name in ("spectrum", "fid_judge"):
            assert ours["metrics"][name]["mean"] == pytest.approx(
                theirs["metrics"][name]["mean"], rel=1e-4
            )
    (tmp_path / "s0" / "reference.safetensors").unlink()
    assert asyncdiff("merge", "s0", "s1", "--out", "again").code == 0
    (tmp_path / "s1" / "reference.safetensors").unlink()
    outcome = asyncdiff("merge", "s0", "s1", "--out", "third")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "reference.safetensors is in none" in outcome.err


def test_an_evaluation_is_a_reference_for_the_next(evaluate, tmp_path):
    whole = evaluate("--json").json
    again = evaluate("--json", reference="store", out="other").json
    assert [row["metrics"] for row in again["rows"]] == [row["metrics"] for row in whole["rows"]]
    other = evaluate(reference="store", size=32, out="larger")
    assert other.code == 2
    assert "has no spectrum of pictures of 32 pixels" in other.err
    (tmp_path / "store" / "reference.safetensors").write_bytes(b"damaged")
    outcome = evaluate("--json", reference="store", out="third")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert evaluate().code == 0  # made again of the pictures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"set-metrics": None, "reference": None, "reward-path": None},
            "settings, set metrics",
        ),
        ({"set-metrics": "spectrum", "reward-path": None}, "settings, set metrics"),
        ({"reference": "few"}, r"has one picture, and a set has two or more"),
        ({"reference": "others"}, "settings, reference"),
        ({"reference": "nowhere"}, "there is no file or directory nowhere"),
        ({"reference": None}, "spectrum, fid_judge: give --reference"),
        ({"set-metrics": None, "reward-path": None}, "give --set-metrics too"),
        ({"set-metrics": "spectra"}, "unknown set metric 'spectra'; did you mean 'spectrum'"),
        ({"reward-path": "spectrum=few"}, "spectrum is a formula"),
        ({"reward-path": "fid_judge=few"}, "few lacks config.json, model.safetensors"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(evaluate, changes, message, photos, tmp_path):
    if "settings, " in message:
        assert evaluate().code == 0
    for name, count in (("few", 1), ("others", 3)):
        (tmp_path / name).mkdir()
        for file in sorted(photos.iterdir())[:count]:
            shutil.copy(file, tmp_path / name)
    outcome = evaluate(**changes)
    assert outcome.code in (1, 2)
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_reference_smaller_than_what_is_drawn_is_refused(evaluate):
    outcome = evaluate(size=32, out="larger")
    assert outcome.code == 2
    assert "24×16 pixels, and what is drawn 32×32" in outcome.err
    assert evaluate(out="larger").code == 0  # what was not begun is free


def test_other_weights_do_not_go_on_with_a_store(evaluate, judge_directory, tmp_path):
    assert evaluate().code == 0
    other = shutil.copytree(judge_directory, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other / "model.safetensors")
    outcome = evaluate(**{"reward-path": f"fid_judge={other}"})
    assert outcome.code == 2
    assert "other settings, set_metrics" in outcome.err


def test_a_store_without_its_reference_says_how_to_get_it_back(evaluate, asyncdiff, tmp_path):
    assert evaluate().code == 0
    (tmp_path / "store" / "reference.safetensors").unlink()
    outcome = asyncdiff("report", "store")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "evaluate into the same --out" in outcome.err
    settings = json.loads((tmp_path / "store" / "settings.json").read_text())
    assert settings["set_metrics"]["spectrum"]["weights"] is None
    assert evaluate().code == 0
    assert asyncdiff("report", "store").code == 0


def _without(tensors, name):
    del tensors[name]


def _narrow(tensors, name):
    tensors[name] = tensors[name][:-1].clone()


def _not_finite(tensors, name):
    tensors[name][0] = float("nan")


@pytest.mark.parametrize("damage", [_without, _narrow, _not_finite])
@pytest.mark.parametrize("name", ["fid_judge.mean", "spectrum.mean"])
def test_statistics_that_do_not_fit_are_one_line(evaluated, asyncdiff, damage, name, tmp_path):
    path = shutil.copytree(evaluated, tmp_path / "store") / "reference.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    damage(tensors, name)
    save_file(tensors, path, metadata)
    outcome = asyncdiff("report", "store")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "reference.safetensors" in outcome.err


def test_settings_without_the_reference_are_one_line(evaluated, asyncdiff, tmp_path):
    path = shutil.copytree(evaluated, tmp_path / "store") / "settings.json"
    settings = json.loads(path.read_text())
    del settings["set_metrics"]["spectrum"]["reference_images"]
    path.write_text(json.dumps(settings))
    outcome = asyncdiff("report", "store")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "set_metrics.spectrum.reference_images" in outcome.err


def test_mini_has_a_reference_once_it_ships_with_the_judge(
    asyncdiff, judge_directory, tmp_path, monkeypatch
):
    for module in ("rewards.embedded", "evaluation.set_metrics.reference"):
        monkeypatch.setattr(f"asyncdiff_cli.engine.{module}.ASSETS", tmp_path / "assets")
    (tmp_path / "prompts.txt").write_text("a cat\na dog")
    given = [
        *("eval", "--dataset=prompts.txt", "--policies=baseline", "--steps=1", "--images=0"),
        *("--rewards=sharpness", "--set-metrics=spectrum,fid_judge", "--out=store", "--json"),
    ]
    outcome = asyncdiff(*given)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "give --reference DIR" in outcome.err
    shipped = shutil.copytree(judge_directory, tmp_path / "assets" / "mini_judge")
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for number in range(3):
        Image.new("RGB", (128, 128), (70 * number, 90, 30)).save(scenes / f"{number}.png")
    metrics = SetMetricGroup(("spectrum", "fid_judge"), {"fid_judge": shipped})
    metrics.keep(find_reference(scenes), 128, shipped)
    found = asyncdiff(*given).json
    assert found["settings"]["set_metrics"]["fid_judge"]["reference_images"] == 3
    assert found["rows"][0]["metrics"]["fid_judge"]["n"] == 2
