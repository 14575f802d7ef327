"""The benchmark of the real backbones: their sizes, its counts, and a run of it on a toy."""

import dataclasses
import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.backbones.registry import OFFLOADS, QUANTIZATIONS
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import architecture, exactness, memory, pack, tables
from benchmarks.gpu.architecture import ARCHITECTURES, cast, make_models, parameters
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.rows import Journal, Task, perform
from benchmarks.gpu.settings import SECTIONS, OverBudgetError, Settings
from benchmarks.gpu.speed import compared, embeddings, evaluation_flops
from benchmarks.overhead import STOCK

SMALL = {"device": "cpu", "tiny": True, "size": 64, "steps": 2}


def invoke(*arguments):
    app = typer.Typer()
    app.command()(gpu.main)
    return CliRunner().invoke(app, [*pack.TOY, "--json", *arguments])


def on_meta(architecture):
    with torch.device("meta"):
        return make_models(architecture)


@pytest.mark.parametrize(
    ("name", "transformer"),
    # of the published files: sd35 with its table of positions, which they hold too
    [("flux", 11.901e9), ("sd35", 2.470e9)],
)
def test_the_architectures_have_the_published_sizes(name, transformer):
    models = on_meta(ARCHITECTURES[name])
    stored = sum(tensor.numel() for tensor in models["transformer"].state_dict().values())
    assert stored == pytest.approx(transformer, rel=1e-3)
    *clips, t5 = (models[n] for n in sorted(models) if n.startswith("text_encoder"))
    assert parameters(t5) == pytest.approx(4.762e9, rel=1e-3)
    sizes = [0.123e9, 0.695e9][: len(clips)]
    assert [parameters(clip) for clip in clips] == pytest.approx(sizes, rel=1e-2)
    assert parameters(models["vae"]) == pytest.approx(0.0838e9, rel=1e-2)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_are_the_blocks_of_each_kind(name):
    settings = Settings(backbone=name, layers=3)
    models = on_meta(settings.architecture)
    transformer = models["transformer"]
    assert len(transformer.transformer_blocks) == 3
    if name == "flux":
        assert len(transformer.single_transformer_blocks) == 3
    t5 = models["text_encoder_2" if name == "flux" else "text_encoder_3"]
    assert len(t5.encoder.block) == 3
    assert models["text_encoder"].config.num_hidden_layers == 3
    whole = on_meta(Settings(backbone=name).architecture)["transformer"]
    assert len(whole.transformer_blocks) == {"flux": 19, "sd35": 24}[name]
    assert dataclasses.replace(settings, layers=99).architecture.t5["num_layers"] == 24


@pytest.mark.parametrize(("name", "branches"), [("flux", 1), ("sd35", 2)])
def test_flops_are_those_of_the_layers_counted_by_hand(name, branches):
    backbone = Settings(backbone=name, **SMALL).make_backbone()
    transformer, linear = backbone.pipe.transformer, []
    hooks = [
        module.register_forward_hook(
            lambda module, args, out: linear.append(2 * module.in_features * out.numel())
        )
        for module in transformer.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    counted = evaluation_flops(backbone)
    for hook in hooks:
        hook.remove()
    config = transformer.config
    image, width = (64 // 16) ** 2, config.num_attention_heads * config.attention_head_dim
    tokens = image + embeddings(backbone, 1)["prompt_embeds"].shape[1]
    joint = len(transformer.transformer_blocks)
    joint += len(getattr(transformer, "single_transformer_blocks", ()))
    alone = len(config.get("dual_attention_layers", ()))  # the image's tokens among themselves
    attention = 4 * width * (joint * tokens**2 + alone * image**2)
    patches = 0 if name == "flux" else 2 * image * width * 4 * config.in_channels
    assert counted == sum(linear) + branches * (attention + patches)


def test_random_weights_have_the_dtype_and_draw_finite_conditions():
    for name in ARCHITECTURES:
        backbone = Settings(backbone=name, dtype="bf16", **SMALL).make_backbone()
        models = [m for m in backbone.pipe.components.values() if isinstance(m, torch.nn.Module)]
        tensors = [t for model in models for t in model.state_dict().values()]
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.bfloat16}
        assert not any(model.training for model in models)
        given = embeddings(backbone, 2)
        assert all(bool(v.isfinite().all()) for v in given.values() if v is not None)
        assert backbone.size == 64
        assert backbone.name == name


def of(rows, section):
    return [row for row in rows if row["section"] == section]


@pytest.mark.slow
def test_every_section_is_reported_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(exactness, "SCHEDULERS", ["unipc"])
    out = tmp_path / "rows.jsonl"
    result = invoke("--batches", "1,2", "--out", str(out))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert {(row["device"], row["steps"], row["halved"]) for row in of(rows, "model")} == {
        ("cpu", 2, 0)
    }
    order = dict.fromkeys(row["section"] for row in rows if row["section"] != "model")
    assert tuple(order) == SECTIONS
    for name in ARCHITECTURES:
        check_sections([row for row in rows if row["backbone"] == name])


def check_sections(rows):
    found = of(rows, "exactness")
    whole = [row["dtype"] for row in found if row["model"] == "whole"]
    assert whole == ["fp16", "bf16"]
    toys = {(row["dtype"], row["solver"]) for row in found if row["model"] == "toy"}
    assert toys == {(dtype, "unipc") for dtype in ("fp16", "bf16", "fp32")}
    ways = {"stock, again", "sample, synchronous", "sample, γ = 0", "attach, synchronous"}
    assert all(row["equal"] == dict.fromkeys(ways, True) for row in found), found
    ratios = [row for row in of(rows, "overhead") if row["method"] != STOCK]
    assert [(row["batch"], row["method"], row["aim"]) for row in ratios] == [
        *((batch, f"sample, {n}", aim) for batch in (1, 2) for n, aim in AIMS.items()),
        *((1, f"attach, {n}", aim) for n, aim in AIMS.items()),
    ]
    assert [row["aim"] for row in of(rows, "training")] == [1.03]
    for row in [*ratios, *of(rows, "training")]:
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["rounds"] == 3
    assert [row["skipped"] for row in of(rows, "memory")] == ["there is no peak to read on a CPU"]
    product, *denoiser = of(rows, "speed")
    for row in denoiser:
        assert row["share_of_product"] * product["tflops"] == pytest.approx(row["tflops"])
    compiled = {key: value for row in of(rows, "compile") for key, value in row.items()}
    assert compiled["graphs"] > 0
    assert compiled["recompilations"] == 0


AIMS = {"fixed": 1.005, "learned": 1.02}


def test_a_row_that_fails_says_why_and_the_others_go_on(tmp_path):
    settings, journal = Settings(**SMALL), Journal(tmp_path / "rows.jsonl")

    def rows():
        yield {"seconds": 1}
        raise RuntimeError("no such\nkernel")

    def tasks():
        yield Task({"batch": 1}, rows)
        yield Task({"batch": 4}, lambda: [{"seconds": 2}], seconds=1e6)
        yield Task({"batch": 2}, lambda: [{"seconds": 3}])
        raise torch.OutOfMemoryError("while the next one is prepared")

    perform(tasks(), {"section": "speed"}, journal, settings)
    kept = [json.loads(line) for line in journal.file.read_text().splitlines()]
    assert kept == journal.rows
    assert [row.get("batch") for row in kept] == [1, 1, 4, 2, None]
    assert [row.get("seconds") for row in kept] == [1, None, None, 3, None]
    assert kept[1]["failed"] == "RuntimeError: no such kernel"
    assert "of --budget 570" in kept[2]["skipped"]
    assert kept[4]["failed"].startswith("OutOfMemoryError")
    assert journal.failed
    assert tables.table("speed", kept).row_count == 5


def test_a_failure_is_told_by_the_exit_code(monkeypatch):
    monkeypatch.setitem(gpu.TASKS, "speed", lambda bench: iter([Task({}, lambda: [1 / 0])]))
    result = invoke("--sections", "speed", "--backbones", "sd35")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in json.loads(result.stdout.splitlines()[-1])["failed"]


def test_the_budget_counts_from_the_start_of_the_process():
    settings = Settings(**SMALL, budget=1e6)
    assert settings.left < 1e6 - 1  # python, torch and pytest have taken more than that
    with pytest.raises(OverBudgetError, match="--budget 0"):
        dataclasses.replace(settings, budget=0.0).check_left(0)
    assert Bench(settings).seconds(4) == 0
    assert Bench(settings, per_image={1: 2.0, 4: 1.0}).seconds(16) == 16
    with pytest.raises(InputError, match="section"):
        gpu.parse_names("section", "sped", SECTIONS)


def test_weights_that_overflow_are_halved(monkeypatch):
    backbone = Settings(backbone="sd35", **SMALL).make_backbone()
    layer = backbone.pipe.transformer.transformer_blocks[0].ff.net[2]
    before, tries = layer.weight.clone(), []

    def sample(*_, **__):
        tries.append(1)
        if len(tries) < 3:
            raise AsyncDiffError("NaN or infinity in the latents")

    monkeypatch.setattr(architecture, "sample", sample)
    assert architecture.calm(backbone) == 2
    assert torch.equal(layer.weight, before / 4)


def test_a_pipeline_is_cast_in_place():
    backbone = Settings(backbone="flux", **SMALL).make_backbone()
    other = cast(backbone, torch.bfloat16)
    assert other.pipe is backbone.pipe
    assert (other.dtype, other.entry) == (torch.bfloat16, backbone.entry)
    t5 = other.pipe.text_encoder_2
    assert {p.dtype for p in t5.parameters()} == {torch.bfloat16}
    cast(other, torch.float16)
    found = {name.endswith("wo.weight"): p.dtype for name, p in t5.named_parameters()}
    assert found == {True: torch.float32, False: torch.float16}  # as it is loaded


def test_a_ratio_is_compared_with_its_aim():
    ours, theirs = np.array([1.0, 2.02, 3.0]), np.array([1.0, 2.0, 3.0])
    assert compared(ours, theirs, aim=1.0)["reached"]
    assert not compared(1.1 * ours, theirs, aim=1.005)["reached"]


def test_memory_is_of_every_offload_and_quantization_alone_first():
    pairs = memory.configurations()
    assert len(pairs) == len(set(pairs)) == (1 + len(QUANTIZATIONS)) * len(OFFLOADS)
    alone = len(QUANTIZATIONS) + len(OFFLOADS)
    assert pairs[0] == ("none", "none")
    assert all("none" in pair for pair in pairs[:alone])
    assert not any("none" in pair for pair in pairs[alone:])


def here(command, **_):
    """What `subprocess.run` does, in this process."""
    app = typer.Typer()
    app.command()(memory.main)
    result = CliRunner().invoke(app, command[3:])
    return SimpleNamespace(stdout=result.stdout, stderr="", returncode=result.exit_code)


@pytest.mark.parametrize("run", [here, pytest.param(subprocess.run, marks=pytest.mark.slow)])
def test_a_row_of_memory_is_measured_in_its_own_process(tmp_path, monkeypatch, run):
    monkeypatch.setattr(memory.subprocess, "run", run)
    settings = Settings(**SMALL)
    backbone = settings.make_backbone()
    models = [m for m in backbone.pipe.components.values() if isinstance(m, torch.nn.Module)]
    assert memory.write(backbone, tmp_path) == 4 * sum(map(parameters, models))
    row = memory.run_apart(tmp_path, settings, "none", "none")
    assert row["draw_seconds"] > 0, row
    assert row["host_peak_bytes"] > 0
    assert row["peak_bytes"] is None  # there is no GPU
    assert row["estimated_bytes"] > 4 * sum(map(parameters, models))


def test_a_row_of_memory_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "model_index.json").write_text("{}")
    arguments = [str(tmp_path), "--device", "cpu", "--dtype", "float32", "--quantize", "int9"]
    app = typer.Typer()
    app.command()(memory.main)
    result = CliRunner().invoke(app, arguments)
    assert "InputError" in json.loads(result.stdout)["reason"]

    def run(*_, **__):
        return SimpleNamespace(stdout=result.stdout, stderr="", returncode=0)

    monkeypatch.setattr(memory.subprocess, "run", run)
    with pytest.raises(RuntimeError, match="InputError"):
        memory.run_apart(tmp_path, Settings(**SMALL), "int9", "none")

    class Full:
        free = 10

    monkeypatch.setattr(memory.shutil, "disk_usage", lambda _: Full)
    with pytest.raises(OSError, match="--scratch"):
        memory.write(Settings(**SMALL).make_backbone(), tmp_path)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_peaks_stand_beside_their_estimates(name, tmp_path, monkeypatch):
    """All of the section but the GPU: its counters, and the processes that it starts."""
    bench, journal = Bench(Settings(backbone=name, **SMALL, group=3, scratch=tmp_path)), Journal()
    monkeypatch.setattr(memory, "READABLE", ("cpu",))
    for counter in ("max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, counter, lambda device: 1 << 20)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    started = []
    monkeypatch.setattr(memory, "run_apart", lambda *given: started.append(given[2:]) or {})
    perform(memory.tasks(bench), {"section": "memory"}, journal, bench.settings)
    assert not journal.failed, journal.rows
    peaks = [row for row in journal.rows if "peak_bytes" in row]
    assert [row["batch"] for row in peaks] == [1, 4, 3]
    assert peaks[0]["estimated_bytes"] < peaks[1]["estimated_bytes"]
    assert started == memory.configurations()
    assert bench._backbone is None  # it leaves the GPU to them
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_wheels(monkeypatch):
    def download(folder, python, wheels):
        folder.mkdir()
        (folder / "x.whl").write_bytes(bytes(1000))

    monkeypatch.setattr(pack, "download", download)


def test_the_folder_has_the_code_without_its_weights(no_wheels, tmp_path):
    folder = tmp_path / "check"
    size = pack.pack(folder, "3.12")
    names = {file.name for file in folder.rglob("*") if file.is_file()}
    assert {
        "run.sh",
        "LICENSE",
        "x.whl",
        "loop.py",
        "flux-coco.yaml",
        "vocabulary.json",
    } <= names
    assert not any(name.endswith((".safetensors", ".png", ".pyc")) for name in names)
    assert size == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert size < 8 * pack.MIB
    with pytest.raises(InputError, match="is there already"):
        pack.pack(folder, "3.12")
    with pytest.raises(AsyncDiffError, match="MiB, and 0 are taken"):
        pack.pack(tmp_path / "other", "3.12", limit=0)


def test_nothing_but_what_the_machine_has_is_linked(tmp_path):
    names = set(pack.needed(["torch", "transformers"]))
    assert {"torch", "transformers", "tokenizers", "numpy"} <= names
    assert not names & {"diffusers", "pydantic", "pytest", "open-clip-torch"}
    pack.link(["safetensors"], tmp_path / "outside")
    linked = {path.name.partition("-")[0] for path in (tmp_path / "outside").iterdir()}
    assert linked == {"safetensors"}


@pytest.mark.slow
def test_the_folder_runs_by_itself(tmp_path):
    """It asks the package index for wheels."""
    app = typer.Typer()
    app.command()(pack.main)
    result = CliRunner().invoke(app, [str(tmp_path / "check"), "--python", "3.12"])
    assert result.exit_code == 0, result.output
    assert "rows of it on this CPU" in result.stdout
