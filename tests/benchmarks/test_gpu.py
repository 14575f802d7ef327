"""The benchmark of the real backbones: their sizes, its counts, and a run of it on a toy."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from asyncdiff_cli.engine.registry import OFFLOADS, QUANTIZATIONS
from asyncdiff_cli.engine.schedulers import SCHEDULERS
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import memory, tables
from benchmarks.gpu.architecture import ARCHITECTURES, make_models, parameters
from benchmarks.gpu.settings import SECTIONS, OverBudgetError, Settings
from benchmarks.gpu.speed import Timings, compared, embeddings, evaluation_flops, timings
from benchmarks.overhead import STOCK

SMALL = {"device": "cpu", "tiny": True, "size": 64, "steps": 2}
ARGUMENTS = [
    *("--device", "cpu", "--tiny", "--layers", "1", "--size", "64", "--steps", "2"),
    *("--batches", "1,2", "--rounds", "3", "--group", "4", "--product", "64"),
    *("--compile", "--compiler", "eager", "--json"),
]


def invoke(*arguments):
    app = typer.Typer()
    app.command()(gpu.main)
    return CliRunner().invoke(app, [*ARGUMENTS, *arguments])


def check_exactness(section):
    found = {(row["backbone"], row["dtype"], row["solver"]) for row in section["rows"][:-1]}
    dtypes = ("fp32", "bf16", "fp16")
    toys = [f"{name}, tiny" for name in ARCHITECTURES]
    assert found == {(b, d, s) for b in toys for d in dtypes for s in SCHEDULERS}
    assert section["all_equal"], section


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


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("flux", SECTIONS), ("sd35", SECTIONS[1:])],  # exactness is of both families
)
def test_every_section_is_reported(name, chosen, tmp_path):
    out = tmp_path / "report.json"
    result = invoke("--backbone", name, "--sections", ",".join(chosen), "--out", str(out))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert json.loads(out.read_text()) == report
    assert (report["backbone"], report["device"], report["steps"]) == (name, "cpu", 2)
    sections = report["sections"]
    assert tuple(sections) == chosen
    if "exactness" in chosen:
        check_exactness(sections["exactness"])

    for row in sections["speed"]["rows"]:
        assert row["seconds_per_image"] * row["images_per_second"] == pytest.approx(1)
        rate = row["share_of_product"] * sections["speed"]["product_tflops"]
        assert row["denoiser_tflops"] == pytest.approx(rate)
    assert [row["batch"] for row in sections["speed"]["rows"]] == [1, 2]

    ratios = sections["overhead"]["rows"]
    ways = [f"{w}, {p}" for w in ("sample", "attach") for p in ("synchronous", "fixed", "learned")]
    assert [row["method"] for row in ratios if row["batch"] == 1] == ways
    assert [row["method"] for row in ratios if row["batch"] == 2] == [ways[1], ways[2]]
    for row in [*ratios, sections["training"], *sections["compile"]["rows"]]:
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["rounds"] == 3
    assert {row["aim"] for row in ratios if row["method"].endswith("learned")} == {1.02}
    assert {row["aim"] for row in ratios if row["method"].endswith("fixed")} == {1.005}
    assert sections["training"]["aim"] == 1.03
    assert sections["training"]["images"] == 4
    assert sections["compile"]["graphs"] > 0
    assert sections["compile"]["recompilations"] == 0
    assert "CUDA only" in sections["memory"]["reason"]


def test_a_section_that_fails_does_not_end_the_run(monkeypatch):
    def fail(*_):
        raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(gpu, "measure_speed", fail)
    result = invoke("--sections", "memory,speed", "--layers", "1")
    assert result.exit_code == 1
    sections = json.loads(result.stdout)["sections"]
    assert sections["speed"]["reason"] == "RuntimeError: no such kernel"
    assert list(sections) == ["speed", "compile", "memory"]


def test_what_the_budget_has_no_time_for_is_left_out_and_said():
    settings = Settings(batches=(1, 2), rounds=3, budget=1e4, **SMALL)
    backbone = settings.make_backbone()
    late = dataclasses.replace(settings, budget=0.0)
    with pytest.raises(OverBudgetError, match="--budget 0"):
        late.check_left(1.0)
    nothing = timings(backbone, late, policies=False)
    assert list(nothing.reasons) == [1, 2]
    assert [row["batch"] for row in nothing.left_out] == [1, 2]
    some = timings(backbone, settings, policies=False)
    assert {batch: list(own) for batch, own in some.seconds.items()} == {1: [STOCK], 2: [STOCK]}
    assert some.per_image > 0
    empty = {"product_side": 1, "product_tflops": 1.0, "evaluation_tflop": 1.0}
    assert tables.table("speed", {**empty, "rows": Timings(reasons={4: "late"}).left_out})


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


def test_a_row_of_memory_is_measured_in_its_own_process(tmp_path):
    settings = Settings(**SMALL)
    backbone = settings.make_backbone()
    models = [m for m in backbone.pipe.components.values() if isinstance(m, torch.nn.Module)]
    assert memory.write(backbone, tmp_path) == 4 * sum(map(parameters, models))
    row = memory.run_apart(tmp_path, settings, "none", "none")
    assert row["draw_seconds"] > 0, row
    assert row["host_peak_bytes"] > 0
    assert row["peak_bytes"] is None  # there is no GPU
    assert row["estimated_bytes"] > 4 * sum(map(parameters, models))
    title = tables.memory({"weight_bytes": 1, "rows": [{"quantize": "a", "offload": "b", **row}]})
    assert title.row_count == 1


def test_a_row_of_memory_that_fails_says_why(tmp_path, monkeypatch):
    settings = Settings(**SMALL)
    (tmp_path / "model_index.json").write_text("{}")
    arguments = [str(tmp_path), "--device", "cpu", "--dtype", "float32", "--quantize", "int9"]
    app = typer.Typer()
    app.command()(memory.main)
    result = CliRunner().invoke(app, arguments)
    assert "InputError" in json.loads(result.stdout)["reason"]
    rows = list(memory.measure_memory(tmp_path, dataclasses.replace(settings, budget=0.0)))
    assert all("--budget 0" in row["reason"] for row in rows)

    class Full:
        free = 10

    monkeypatch.setattr(memory.shutil, "disk_usage", lambda _: Full)
    with pytest.raises(OSError, match="--scratch"):
        memory.write(settings.make_backbone(), tmp_path)
