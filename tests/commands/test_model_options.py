"""The options of a model, which all commands that draw take alike."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from asyncdiff_cli.engine.backbones import setup
from asyncdiff_cli.engine.backbones.choice import NEUTRAL, ModelChoice, RecordedSettings, flag
from asyncdiff_cli.engine.backbones.setup import Setup
from asyncdiff_cli.engine.drawing import measured
from asyncdiff_cli.engine.drawing.provenance import Provenance, read_provenance
from asyncdiff_cli.engine.drawing.settings import FROM_IMAGES, BatchSettings
from asyncdiff_cli.engine.evaluation import start as evaluation_start
from asyncdiff_cli.engine.evaluation.comparison import Comparison
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.training import start as training_start
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.run_options import model_overrides
from tests.helpers.training import settings

MODEL = ("--solver", "dpmpp", "--grid", "karras", "--quantize", "int8", "--attention", "native")
RECORDED = {"scheduler": "dpmpp", "grid": "karras", "quantize": "int8", "attention": "native"}


def bytes_of(outcome):
    (image,) = outcome.json["images"]
    with open(image["path"], "rb") as file:
        return file.read()


def test_an_image_carries_them_and_is_drawn_again_with_them(asyncdiff, pipelines):
    given = ("--backbone", pipelines["sd3"], "--steps", 3, "--size", 16, "--json")
    drawn = asyncdiff("sample", "a cat", *given, *MODEL, "--device", "cpu")
    assert drawn.code == 0, drawn.err
    path = drawn.json["images"][0]["path"]
    record = read_provenance(path)
    assert {name: getattr(record, name) for name in RECORDED} == RECORDED
    again = asyncdiff("sample", "--from", path, "--out", "again", "--json")
    assert bytes_of(again) == bytes_of(drawn)
    shown = asyncdiff("inspect", path).out
    assert "karras" in shown
    assert "int8" in shown
    assert "lora" not in shown
    plain = asyncdiff("sample", "a cat", *given, "--device", "cpu", "--out", "plain")
    assert bytes_of(plain) != bytes_of(drawn)


@pytest.mark.parametrize("grid", ["uniform", "karras", "beta", "logsnr"])
@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp", "unipc"])
def test_every_solver_takes_every_grid(draw, solver, grid):
    drawn = draw("a cat", "--solver", solver, "--grid", grid, "--json")
    assert drawn.code == 0, drawn.err
    times = drawn.json["images"][0]["cond_sigmas"]
    assert len(times) == (5 if solver == "heun" else 3)


def test_scheduler_is_another_word_for_solver(draw):
    one, other = (
        draw("a cat", option, "unipc", "--json", "--out", option.strip("-"))
        for option in ("--solver", "--scheduler")
    )
    assert bytes_of(one) == bytes_of(other)


def test_json_names_every_option_in_force(asyncdiff, pipelines):
    """By the fields of what holds them, so that a new option is in it too."""
    given = ("a cat", "--backbone", pipelines["sd3"], "--steps", 2, "--size", 16, "--device", "cpu")
    drawn, dry = (
        asyncdiff("sample", *given, *MODEL, "--negative", "a dog", "--json", *more).json
        for more in ([], ["--dry-run"])
    )
    for found in (drawn, dry):
        assert found["model"].keys() == set(ModelChoice.options())
        assert {name: found["model"][name] for name in RECORDED} == RECORDED
        (own,) = found["settings"]
        assert own.keys() == {field.name for field in fields(BatchSettings)} - {*FROM_IMAGES}
        assert (own["num_inference_steps"], own["negative_prompt"]) == (2, "a dog")
    assert drawn["model"] == dry["model"]
    usual = asyncdiff("sample", *given, "--dry-run").out
    assert "scheduler euler, grid model, offload none" in usual
    (record,) = drawn["images"]
    shown = read_provenance(record["path"])
    assert {n: getattr(shown, n) for n in drawn["model"] if hasattr(shown, n)} == {
        n: tuple(v) if n == "lora" else v for n, v in drawn["model"].items() if hasattr(shown, n)
    }


@pytest.mark.parametrize("command", ["sample", "eval", "sweep", "train", "panel"])
def test_an_option_of_a_model_is_one_field(asyncdiff, command):
    """Commands show what the field says; recipes, records of pictures and `Setup` inherit it."""
    shown = " ".join(asyncdiff(command, "--help").out.replace("│", " ").split())
    for name, option in ModelChoice.options().items():
        assert f"{flag(name)}" in shown
        assert " ".join(option.help.split()) in shown
    settings = ModelChoice.options().keys() - {"device"}
    assert settings <= Recipe.model_fields.keys() & Setup.model_fields.keys()
    assert RecordedSettings.model_fields.keys() <= Provenance.model_fields.keys()


def test_an_evaluation_is_of_one_model(asyncdiff, pipelines, tmp_path, monkeypatch):
    small = ("--steps", 2, "--size", 16, "--rewards", "sharpness", "--device", "cpu")
    given = ("eval", "--dataset", "mini", "--policies", "baseline,fixed:0.5", "--limit", 2, *small)
    model = ("--backbone", pipelines["flux"])
    done = asyncdiff(*given, *model, *MODEL, "--out", "store", "--json")
    assert done.code == 0, done.err
    store = Store(tmp_path / "store")
    assert {name: store.settings[name] for name in RECORDED} == RECORDED
    options = done.json["options"]
    assert options.keys() == {"model"} | {f.name for f in fields(Comparison)} - {"choice"}
    assert options["model"].keys() == set(ModelChoice.options())
    assert (options["steps"], options["size"], options["limit"]) == ([2], 16, 2)
    for name in ("RewardGroup", "open_canvas"):  # it is refused before any weights are read
        monkeypatch.delattr(evaluation_start, name)
    other = asyncdiff(*given, *model, "--out", "store")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "was evaluated with other settings" in other.err


def test_a_run_keeps_its_model_and_may_change_what_waits(
    asyncdiff, pipelines, tmp_path, monkeypatch
):
    small = settings({"iterations": 1, "evaluation": {"every": 0}})
    given = ("train", "--recipe", "mini", "--backbone", pipelines["sd3"], "--device", "cpu", *small)
    done = asyncdiff(*given, *MODEL, "--out", "r")
    assert done.code == 0, done.err
    recipe = load_recipe(str(tmp_path / "r" / "recipe.yaml"))
    assert {name: getattr(recipe, name) for name in RECORDED} == RECORDED
    other = asyncdiff("train", "--resume", "r", "--device", "cpu", "--grid", "beta", "iterations=2")
    assert other.code == 2
    assert "keeps its grid" in other.err
    off = asyncdiff("train", "--resume", "r", "--device", "cpu", "--quantize", "none")
    assert "keeps its quantize" in off.err
    assert asyncdiff("train", "--resume", "r", "--device", "cpu", "iterations=2").code == 0
    assert not list((tmp_path / "r").glob(".text*"))
    for name in ("RewardGroup", "open_canvas"):
        monkeypatch.delattr(training_start, name)
    elsewhere = ("--resume", "r", "--model-path", tmp_path / "louder", "--device", "cpu")
    shutil.copytree(pipelines["sd3"], tmp_path / "louder")
    weights = next((tmp_path / "louder" / "vae").glob("*.safetensors"))
    save_file({name: w * 1.1 for name, w in load_file(weights).items()}, weights)
    other = asyncdiff("train", *elsewhere, "iterations=3")
    assert other.code == 1
    assert "has no checkpoint to go on from" in other.err


def test_a_transformer_from_a_file(asyncdiff, pipelines, tmp_path):
    weights = load_file(next((pipelines["sd3"] / "transformer").glob("*.safetensors")))
    louder = {name: value * 1.1 for name, value in weights.items()}
    save_file(louder, tmp_path / "tuned.safetensors")
    given = ("--backbone", pipelines["sd3"], "--steps", 3, "--size", 16, "--json")
    tuned = ("--model-path", "tuned.safetensors")
    plain, drawn = (
        asyncdiff("sample", "a cat", *given, *more, "--out", f"out{n}")
        for n, more in enumerate([(), tuned])
    )
    assert bytes_of(plain) != bytes_of(drawn)
    path = drawn.json["images"][0]["path"]
    again = asyncdiff("sample", "--from", path, *tuned, "--out", "again", "--json")
    assert bytes_of(again) == bytes_of(drawn)
    lost = asyncdiff("sample", "--from", path, "--out", "lost")
    assert "another fingerprint" in lost.err
    assert "a --model-path is not recorded: if it was drawn with one, give it again" in lost.err


OFF = (
    *("--solver", "model", "--grid", "model", "--quantize", "none", "--offload", "none"),
    *("--lora", "none", "--no-compile", "--attention", "none"),
)


def test_each_can_be_switched_off_on_a_redraw(asyncdiff, pipelines):
    given = ("--backbone", pipelines["sd3"], "--steps", 2, "--size", 16, "--device", "cpu")
    drawn = asyncdiff("sample", "a cat", *given, *MODEL, "--json")
    plain = asyncdiff("sample", "a cat", *given, *OFF, "--out", "plain", "--json")
    path = drawn.json["images"][0]["path"]
    again = asyncdiff("sample", "--from", path, *OFF, "--out", "again", "--json")
    assert again.code == 0, again.err
    assert bytes_of(again) == bytes_of(plain)
    assert bytes_of(again) != bytes_of(drawn)


SAID = {
    "scheduler": "dpmpp",
    "grid": "karras",
    "quantize": "int8",
    "offload": "model",
    "lora": ["someone/style"],
    "compile": True,
    "attention": "native",
}


def test_each_can_be_switched_off_over_a_recipe():
    assert SAID.keys() == NEUTRAL.keys()
    said = [f"{name}={json.dumps(value)}" for name, value in SAID.items()]
    off = model_overrides(ModelChoice.parse(**NEUTRAL))
    usual, undone = (load_recipe("mini", lines).model() for lines in ([], [*said, *off]))
    assert undone.changed(off=frozenset()) == usual.changed(off=frozenset())
    typed = ["scheduler=model", "quantize=none", "lora=none", "attention=none"]
    undone = load_recipe("mini", [*said, *typed]).model()
    assert (undone.scheduler, undone.quantize, undone.lora, undone.attention) == (
        None,
        None,
        (),
        None,
    )
    assert load_recipe("mini", ["lora=a.safetensors@0.5"]).lora == ("a.safetensors@0.5",)


@pytest.mark.parametrize("command", ["sample", "train", "eval", "sweep", "panel"])
def test_bad_ones_are_one_line_from_every_command(asyncdiff, command):
    words = ["a cat"] if command in ("sample", "panel") else []
    more = ["--gammas", "0.5"] if command == "sweep" else []
    for name in ("torn.safetensors", "old.sft"):
        Path(name).write_bytes(b"\xff")
    for bad, line in (
        (("--quantize", "int9"), "int9"),
        (("--offload", "group", "--device", "cpu"), "frees a GPU"),
        (("--solver", "eular"), "--solver: unknown scheduler 'eular'; did you mean 'euler'?"),
        (("--lora", "no/where.safetensors"), "there is no LoRA no/where.safetensors"),
        (("--lora", "someone/style@nan"), "nan is outside [-10, 10]"),
        (("--lora", "torn.safetensors"), "torn.safetensors is not a readable .safetensors file"),
        (("--lora", "old.sft"), "--lora old.sft is no .safetensors file"),
        (("--model-path", "nowhere.gguf"), "there is no file nowhere.gguf"),
    ):
        outcome = asyncdiff(command, *words, *more, *bad)
        assert outcome.code == 2, (command, bad, outcome.err)
        assert outcome.err.count("\n") == 1
        assert line in outcome.err


def test_json_is_one_object_whatever_is_installed(asyncdiff):
    drawn = asyncdiff("sample", "a cat", "--quantize", "fp8", "--json")
    assert json.loads(drawn.out)["images"]


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_a_dry_run_looks_into_a_single_file(asyncdiff, pipelines, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(measured, "SMALL_MODEL", 0)  # so that nothing is loaded to be timed
    weights = pipelines["sd3"] / "transformer" / "diffusion_pytorch_model.safetensors"
    file = tmp_path / f"model{suffix}"
    if suffix == ".gguf":
        gguf = pytest.importorskip("gguf")
        writer = gguf.GGUFWriter(file, "sd3")
        for name, weight in load_file(weights).items():
            writer.add_tensor(name, weight.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    else:
        file.write_bytes(weights.read_bytes())
    given = ("sample", "a cat", "--backbone", pipelines["sd3"], "--dry-run", "--json")
    single = (*given, "--model-path", file, "--device", "cpu")
    whole, found = asyncdiff(*given, "--device", "cpu").json, asyncdiff(*single).json
    assert found["weights_bytes"] == pytest.approx(whole["weights_bytes"], rel=0.05)
    if suffix == ".gguf":
        assert found["weights_reason"].startswith(f"{file.stat().st_size:,} bytes of the file")
    refused = asyncdiff(*single, "--size", 17)
    assert (refused.code, "needs a multiple of 4" in refused.err) == (2, True)
    other = asyncdiff(*single, "--backbone", pipelines["flux"])
    assert (other.code, "does not hold the weights of this FluxT" in other.err) == (2, True)


def test_a_dry_run_checks_every_size(asyncdiff, pipelines, tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "SMALL_MODEL", 0)
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "size": 10}')
    given = ("--prompt-file", "p.jsonl", "--backbone", pipelines["sd3"], "--dry-run")
    refused = asyncdiff("sample", *given, "--size", 16)
    assert (refused.code, "needs a multiple of 4" in refused.err) == (2, True)


def test_a_dry_run_refuses_what_only_the_libraries_know(asyncdiff, monkeypatch):
    def refuse(backend):
        raise RuntimeError(f"{backend} is not installed")

    monkeypatch.setattr(setup, "_check_attention_backend_requirements", refuse)
    given = ("sample", "a cat", "--attention", "flash")
    drawn, dry = (asyncdiff(*given, *more) for more in ((), ("--dry-run",)))
    assert (drawn.code, drawn.err) == (dry.code, dry.err)
    assert (dry.code, dry.err.startswith("error: --attention flash")) == (2, True)
