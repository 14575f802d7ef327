"""`asyncdiff sample`, on tiny pipelines."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asyncdiff_cli import render
from asyncdiff_cli.engine.drawing.provenance import read_provenance, save_png
from tests.helpers.processes import Forked


def pixels(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def files(directory: str = "outputs") -> list[str]:
    return sorted(os.listdir(directory))


def test_the_paths_are_on_stdout_and_nothing_on_stderr(draw):
    outcome = draw("a cat", "Ein Löwe!", "-n", 2, "--seed", 7)
    assert (outcome.code, outcome.err) == (0, "")
    names = [
        "0000-a-cat-seed7.png",
        "0001-a-cat-seed8.png",
        "0002-ein-lowe-seed9.png",
        "0003-ein-lowe-seed10.png",
    ]
    assert outcome.out.split() == [f"outputs/{name}" for name in names]
    assert files() == names
    assert {pixels(f"outputs/{name}").shape for name in names} == {(16, 16, 3)}


def test_json_is_one_object_and_agrees_with_the_files(draw):
    outcome = draw("a cat", "-n", 2, "--seed", 7, "--gamma", 1.5, "--deviation", 0.5, "--json",
                   "--out", "d")  # fmt: skip
    assert (outcome.code, outcome.err, outcome.out.count("\n")) == (0, "", 1)
    report = outcome.json
    assert report["seconds"] > 0
    assert [image["seed"] for image in report["images"]] == [7, 8]
    for image in report["images"]:
        record = read_provenance(image["path"])
        assert (image["prompt"], image["gamma"]) == (record.prompt, record.gamma) == ("a cat", 1.5)
        assert image["deviations"] == [0.5, 0.5] == list(record.deviations)
        assert image["cond_sigmas"] == list(record.cond_sigmas)
        assert len(image["cond_sigmas"]) == 3


def test_the_noise_of_an_image_follows_its_seed_alone(draw):
    draw("a cat", "a dog", "-n", 2, "--batch-size", 3, "--out", "together")
    draw("a cat", "a dog", "-n", 2, "--batch-size", 1, "--out", "alone")
    assert files("together") == files("alone")
    for name in files("alone"):
        assert abs(pixels(f"together/{name}") - pixels(f"alone/{name}")).max() <= 1
        record = read_provenance(f"alone/{name}")
        draw(record.prompt, "--seed", record.seed, "--out", "again")
        again = f"again/0000{name[4:]}"
        assert Path(again).read_bytes() == Path(f"alone/{name}").read_bytes()
    assert (
        abs(pixels("alone/0000-a-cat-seed0.png") - pixels("alone/0001-a-cat-seed1.png")).max() > 9
    )


@pytest.mark.parametrize("option", [("--deviation", 0), ("--gamma", 0)])
def test_no_deviation_is_the_stock_sampler(draw, option, pipelines):
    import torch
    from diffusers import StableDiffusion3Pipeline

    draw("a cat", *option, "--seed", 3)
    pipe = StableDiffusion3Pipeline.from_pretrained(pipelines["sd3"])
    stock = pipe(
        ["a cat"], num_inference_steps=3, guidance_scale=5.0, height=16, width=16,
        generator=[torch.Generator().manual_seed(3)],
    ).images[0]  # fmt: skip
    assert (pixels("outputs/0000-a-cat-seed3.png") == np.asarray(stock)).all()


def test_the_backbones_own_policy_is_the_default(draw):
    assert draw("a cat", "--json").json["images"][0]["deviations"] == pytest.approx([0.192] * 2)
    flux = draw("a cat", "--json", family="flux").json["images"][0]
    assert flux["deviations"] == pytest.approx([0.499] * 2)


def test_a_schedule_is_resampled(draw):
    image = draw("a cat", "--schedule", "0,0.5,0.25", "--json").json["images"][0]
    assert image["deviations"] == [0, 0.25]


def test_flux_takes_a_negative_prompt_as_true_guidance(draw):
    for out, options in (("without", ()), ("with", ("--negative", "a dog"))):
        assert draw("a cat", "--guidance", 3, *options, "--out", out, family="flux").code == 0
    name = "0000-a-cat-seed0.png"
    assert abs(pixels(f"with/{name}") - pixels(f"without/{name}")).max() > 0
    assert read_provenance(f"with/{name}").negative_prompt == "a dog"


def test_sizes_are_width_by_height(draw):
    draw("a cat", "--size", "24x16")
    assert pixels("outputs/0000-a-cat-seed0.png").shape == (16, 24, 3)


def test_a_prompt_file_and_its_options(draw, tmp_path):
    lines = [
        {"prompt": "one", "gamma": 0.5, "num_images": 2, "seed": 40},
        {"prompt": "two", "size": "24x16", "steps": 2, "deviation": -0.5},
        {"prompt": "three"},
    ]
    (tmp_path / "prompts.jsonl").write_text("# mine\n\n" + "\n".join(map(json.dumps, lines)))
    report = draw("zero", "--prompt-file", "prompts.jsonl", "--gamma", 2, "--schedule", "0.1,0.1",
                  "--json").json  # fmt: skip
    images = {image["path"]: image for image in report["images"]}
    assert {
        Path(p).name: (i["seed"], i["gamma"], len(i["cond_sigmas"])) for p, i in images.items()
    } == {
        "0000-zero-seed0.png": (0, 2, 3),
        "0001-one-seed40.png": (40, 0.5, 3),
        "0002-one-seed41.png": (41, 0.5, 3),
        "0003-two-seed3.png": (3, 2, 2),
        "0004-three-seed4.png": (4, 2, 3),
    }
    assert images["outputs/0003-two-seed3.png"]["deviations"] == [-0.5]
    assert pixels("outputs/0003-two-seed3.png").shape == (16, 24, 3)


def test_the_same_bytes_out_of_a_batch_of_three(draw):
    draw("a cat", "a dog", "a pig", "--batch-size", 3, "--gamma", 1.5, "--scheduler", "heun")
    for name in files():
        assert len(read_provenance(f"outputs/{name}").batch) == 3
        outcome = draw("--from", f"outputs/{name}", "--out", "again")
        assert (outcome.code, outcome.err, outcome.out) == (0, "", f"again/{name}\n")
        assert Path("again", name).read_bytes() == Path("outputs", name).read_bytes()
    assert files("again") == files()


def test_options_redraw_the_same_noise(draw):
    draw("a cat", "a dog", "--gamma", 1.5)
    source = "outputs/0001-a-dog-seed1.png"
    outcome = draw("--from", source, "--gamma", 0, "--negative", "no fog", "--out", "new")
    assert outcome.out == "new/0001-a-dog-seed1-negative-no-fog-gamma0.png\n"
    record = read_provenance(outcome.out.strip())
    assert (record.gamma, record.negative_prompt, record.prompt) == (0, "no fog", "a dog")
    draw("a cat", "a dog", "--gamma", 0, "--negative", "no fog", "--out", "direct")
    assert (
        Path(outcome.out.strip()).read_bytes() == Path("direct/0001-a-dog-seed1.png").read_bytes()
    )


def test_a_redraw_elsewhere_says_what_differs(draw):
    draw("a cat")
    source = Path("outputs/0000-a-cat-seed0.png")
    record = read_provenance(source)
    versions = {**record.versions, "diffusers": "0.0.1"}
    save_png(Image.open(source), source, record.model_copy(update={"versions": versions}))
    outcome = draw("--from", source, "--out", "again")
    now = record.versions["diffusers"]
    assert outcome.code == 0
    assert (
        outcome.err == f"warning: drawn with another diffusers 0.0.1 → {now}: pixels may differ\n"
    )


def test_an_image_of_other_settings_is_never_replaced(draw):
    options = "a cat", "--compare", "0,1"
    first = draw(*options, "--steps", 2)
    before = {name: Path("outputs", name).read_bytes() for name in files()}
    other = draw(*options, "--steps", 3)
    numbered = [f"{name[:-4]}-2.png" for name in before]
    assert {Path(line).name for line in other.out.split()} == set(numbered)
    assert "outputs has images of the same names by other settings, which are kept" in other.err
    assert other.err.count("\n") == 1
    for steps, expected in ((2, first), (3, other)):  # the same commands write the same files
        assert draw(*options, "--steps", steps).out == expected.out
    assert files() == sorted([*before, *numbered])
    assert all(Path("outputs", name).read_bytes() == content for name, content in before.items())


def test_a_file_of_someone_else_is_never_replaced(draw):
    Path("outputs").mkdir()
    Path("outputs/0000-a-cat-seed0.png").write_text("mine")
    assert draw("a cat", "--steps", 2).out == "outputs/0000-a-cat-seed0-2.png\n"
    assert Path("outputs/0000-a-cat-seed0.png").read_text() == "mine"


def test_a_redraw_does_not_overwrite_its_source(draw):
    draw("a cat")
    before = Path("outputs/0000-a-cat-seed0.png").read_bytes()
    for option in ((), ("--dry-run",)):
        outcome = draw("--from", "outputs/0000-a-cat-seed0.png", *option)
        assert outcome.code == 2
        assert "would be overwritten: give another --out" in outcome.err
    assert Path("outputs/0000-a-cat-seed0.png").read_bytes() == before


def test_a_moved_backbone_is_found_by_its_path(draw, pipelines, tmp_path):
    draw("a cat")
    source = Path("outputs/0000-a-cat-seed0.png")
    record = read_provenance(source).model_copy(update={"backbone": "./moved"})
    save_png(Image.open(source), source, record)
    assert "there is no directory ./moved" in draw("--from", source, "--out", "again").err
    outcome = draw("--from", source, "--out", "again", "--model-path", pipelines["sd3"])
    assert (outcome.code, outcome.err) == (0, "")


def test_a_comparison_has_one_panel_per_prompt(draw):
    outcome = draw("a cat", "a dog", "-n", 2, "--compare", "0,2", "--gamma", 1.5, "--json")
    report = outcome.json
    assert [panel["gammas"] for panel in report["panels"]] == [[0, 1.5, 2]] * 2
    assert [panel["seeds"] for panel in report["panels"]] == [[0, 1], [2, 3]]
    assert len(report["images"]) == 12
    draw("a cat", "a dog", "-n", 2, "--gamma", 1.5, "--out", "plain")
    same = "0002-a-dog-seed2"
    assert (pixels(f"outputs/{same}-gamma1.5.png") == pixels(f"plain/{same}.png")).all()
    panel = "0002-a-dog-compare.png"
    again = draw("--from", f"outputs/{panel}", "--out", "again")
    assert (again.code, again.out) == (0, f"again/{panel}\n")
    assert files("again") == [panel]
    assert Path("again", panel).read_bytes() == Path("outputs", panel).read_bytes()


def test_an_image_can_be_compared_afterwards(draw):
    draw("a cat", "a dog", "--gamma", 2)
    outcome = draw("--from", "outputs/0001-a-dog-seed1.png", "--compare", "0,2", "--out", "new")
    assert [Path(line).name for line in outcome.out.split()] == [
        "0001-a-dog-seed1-gamma0.png",
        "0001-a-dog-seed1-gamma2.png",
        "0001-a-dog-seed1-compare.png",
    ]
    assert (
        pixels("new/0001-a-dog-seed1-gamma2.png") == pixels("outputs/0001-a-dog-seed1.png")
    ).all()


def test_a_dry_run_writes_nothing_and_names_what_a_run_writes(draw):
    arguments = "a cat", "a dog", "--compare", "0,1", "--batch-size", 1
    outcome = draw(*arguments, "--dry-run", "--json")
    assert (outcome.code, outcome.err, files(".")) == (0, "", [])
    found = outcome.json
    assert found["dry_run"]
    assert found["images"] == 4
    assert found["seconds"] > 0
    assert found["weights_bytes"] > 0
    assert found["settings"][0]["num_inference_steps"] == 3
    text = draw(*arguments, "--dry-run").out
    draw(*arguments)
    assert sorted(found["files"]) == [f"outputs/{name}" for name in files()]
    assert all(file in text for file in found["files"])


def test_a_dry_run_tells_of_names_that_are_taken(draw):
    Path("outputs").mkdir()
    Path("outputs/0001-a-dog-seed1.png").touch()
    outcome = draw("a cat", "a dog", "--dry-run")
    assert "1 of these files are there: where other settings drew one" in outcome.err
    found = draw("a cat", "a dog", "--dry-run", "--json").json
    assert found["taken"] == [found["files"][1]] == ["outputs/0001-a-dog-seed1.png"]


def test_a_dry_run_says_why_it_does_not_know(asyncdiff, monkeypatch):
    from huggingface_hub import HfApi

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(HfApi, "model_info", offline)
    outcome = asyncdiff("sample", "a cat", "--backbone", "flux", "--dry-run")
    assert (outcome.code, outcome.err) == (0, "")
    assert "unknown (the hub cannot be asked: it does not answer)" in outcome.out
    assert "num_inference_steps 10" in outcome.out
    assert "height 512" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "there is no prompt"),
        ([" "], "an argument is empty"),
        (["x", "--deviation", "0.5", "--schedule", "0.5"], "one of a deviation, a schedule"),
        (["x", "--deviation", "0.7", "--bound", "0.5"], "deviation 0.7 is outside [-0.5, 0.5]"),
        (["x", "--deviation", "1.5"], "deviation 1.5 is outside [-1, 1]"),
        (["x", "--schedule", "0,2"], "deviation 2 is outside [-1, 1]"),
        (["x", "--schedule", "0,a"], "--schedule: "),
        (["x", "--bound", "0.7"], "--bound: the bound is 0.5 or 1, not 0.7"),
        (["x", "--gamma", "nan"], "--gamma: Input should be a finite number"),
        (["x", "--compare", "0,inf"], "--compare: "),
        (["x", "--steps", "0"], "--steps: "),
        (["x", "--num-images", "0", "--batch-size", "0"], "--batch-size: "),
        (["x", "--seed", "-1"], "--seed: "),
        (["x", "--size", "big"], "--size: a size is one number of pixels, or WIDTHxHEIGHT"),
        (["x", "--size", "18"], "needs a multiple of 4"),
        (["x", "--prompt-file", "none.txt"], "there is no file none.txt"),
        (["x", "--scheduler", "eular"], "unknown scheduler 'eular'; did you mean 'euler'"),
        (["x", "--dtype", "fp8"], "unknown dtype 'fp8'"),
        (["x", "--dtype", "fp16", "--device", "cpu"], "fp16 needs a GPU"),
        (["x", "--model-path", "nowhere"], "nowhere is not a diffusers pipeline"),
        (["x", "--out", "file"], "file is a file: give --out a directory"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(draw, arguments, line):
    Path("file").write_text("")
    outcome = draw(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert line in outcome.err
    assert outcome.err.count("\n") == 1
    assert files(".") == ["file"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a cat"], "--from takes its prompt from the image"),
        (["--seed", "3"], "which --seed would change"),
        (["--size", "32"], "which --size would change"),
        (["--backbone", "flux"], "--from draws with the image's backbone"),
    ],
)
def test_what_a_redraw_cannot_change(draw, arguments, line):
    draw("a cat")
    outcome = draw("--from", "outputs/0000-a-cat-seed0.png", *arguments, "--out", "new")
    assert outcome.code == 2
    assert line in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_panel_is_redrawn_as_it_is(draw):
    draw("a cat", "--compare", "0,1")
    outcome = draw("--from", "outputs/0000-a-cat-compare.png", "--gamma", 2, "--out", "new")
    assert outcome.code == 2
    assert "a panel is only redrawn as it is" in outcome.err


def test_a_backbone_with_a_vocabulary_says_what_it_does_not_know(draw, pipelines, tmp_path):
    import shutil

    directory = shutil.copytree(pipelines["sd3"], tmp_path / "pipe")
    words = {"objects": {"cat": ["kitty"]}, "colours": ["red"], "words": ["a", "on", "background"]}
    (directory / "vocabulary.json").write_text(json.dumps(words))
    known = draw("a kitty on a red background", "--model-path", directory)
    assert (known.code, known.err) == (0, "")
    unknown = draw("a bat on a zzz", "a BAT", "--model-path", directory)
    assert unknown.code == 0
    assert "does not know 'bat' (nearest: cat), 'zzz';" in unknown.err
    assert unknown.err.count("\n") == 1
    assert len(unknown.out.split()) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_complete_files(draw, monkeypatch, number):
    steps = iter(range(100))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(*_):
        if next(steps) == 4:
            signal.raise_signal(number)

    monkeypatch.setattr(render.Progress, "step", interrupt)
    outcome = draw("a cat", "-n", 3, "--batch-size", 1)
    signal.signal(signal.SIGINT, before)
    assert (outcome.code, outcome.err) == (128 + number, "")
    assert files() == ["0000-a-cat-seed0.png"]


def test_a_signal_leaves_complete_files(pipelines, tmp_path):
    arguments = ["sample", "a cat", "-n", "400", "--batch-size", "1", "--size", "16"]
    process = Forked(*arguments, "--backbone", pipelines["sd3"], "--out", tmp_path / "out")
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (130, "")
    written = files(str(tmp_path / "out"))
    assert 0 < len(written) < 400
    for name in written:
        assert name.endswith(".png")
        assert not name.startswith(".")
        Image.open(tmp_path / "out" / name).load()
