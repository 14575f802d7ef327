"""Loading, and what is refused before and while loading."""

import itertools
import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file

from asyncdiff_cli.engine import (
    REGISTRY,
    AsyncDiffError,
    AsyncDiffWarning,
    FixedDeviation,
    InputError,
    attach,
    backbone_from_pipeline,
    load_backbone,
    sample,
)
from asyncdiff_cli.engine.backbones import source
from asyncdiff_cli.engine.devices import resolve_device
from tests.conftest import PROMPTS, seeded, tiny_flux, tiny_sd3, tiny_z_image


@pytest.fixture
def directory(pipelines, tmp_path) -> Path:
    """A copy of the SD3 pipeline that a test may damage."""
    return Path(shutil.copytree(pipelines["sd3"], tmp_path / "sd3"))


def draw(backbone, **settings):
    return sample(
        backbone,
        PROMPTS,
        FixedDeviation(0.5),
        num_inference_steps=3,
        generator=seeded(2),
        output_type="pt",
        **settings,
    ).images


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_directory_loads_to_the_pipeline_that_it_holds(pipelines, family):
    backbone = load_backbone(str(pipelines[family]))
    assert (backbone.dtype, backbone.device.type) == (torch.float32, "cpu")
    assert backbone.adapter.family == family
    assert backbone.entry.num_inference_steps == {"sd3": 15, "flux": 10}[family]
    made = backbone_from_pipeline({"sd3": tiny_sd3, "flux": tiny_flux}[family]().to("cpu"))
    size = {"height": 16, "width": 16}
    assert torch.equal(draw(backbone, **size), draw(made, **size))


def test_a_pipeline_may_do_without_t5(tmp_path):
    made = tiny_sd3()
    made.register_modules(text_encoder_3=None, tokenizer_3=None)
    made.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert torch.equal(draw(backbone), draw(backbone_from_pipeline(made.to("cpu"))))
    short = backbone.pipe.encode_prompt("a cat", None, None, max_sequence_length=8)[0]
    assert short.shape[1] == 48 + 8


def test_the_fingerprint_follows_the_weights(pipelines, directory):
    one = load_backbone(str(pipelines["sd3"])).fingerprint
    assert one == load_backbone(str(directory)).fingerprint
    assert one != load_backbone(str(pipelines["flux"])).fingerprint
    weights = directory / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert one != load_backbone(str(directory)).fingerprint


@pytest.mark.parametrize("dtype", ["bf16", "bfloat16", torch.bfloat16])
def test_the_dtype_is_the_one_asked_for(pipelines, dtype):
    backbone = load_backbone(str(pipelines["flux"]), dtype=dtype)
    assert backbone.dtype is torch.bfloat16
    assert draw(backbone, height=16, width=16).isfinite().all()


@pytest.mark.parametrize("scheduler", ["heun", "dpmpp", "unipc"])
def test_the_scheduler_is_the_one_asked_for(pipelines, scheduler):
    backbone = load_backbone(str(pipelines["sd3"]), scheduler=scheduler)
    assert draw(backbone).isfinite().all()
    with attach(backbone.pipe, FixedDeviation(0.5)) as trace:
        backbone.pipe("a cat", num_inference_steps=3)
    assert trace.cond_sigmas.shape == (1, 5 if scheduler == "heun" else 3)


def test_a_named_backbone_loads_from_a_directory(pipelines):
    backbone = load_backbone("sd35", model_path=pipelines["sd3"])
    assert backbone.entry is REGISTRY["sd35"]
    assert backbone.size == 512
    with pytest.raises(InputError, match="holds a FluxPipeline, which is not sd35"):
        load_backbone("sd35", model_path=pipelines["flux"])


def test_mini_is_in_the_package():
    backbone = load_backbone("mini")
    assert backbone.entry is REGISTRY["mini"]
    assert len(backbone.fingerprint) == 64
    assert backbone.revision is None
    assert draw(backbone).shape == (2, 3, backbone.size, backbone.size)


def test_the_entries_hold_what_the_paper_ran():
    flux, sd35 = REGISTRY["flux"], REGISTRY["sd35"]
    assert (flux.num_inference_steps, sd35.num_inference_steps) == (10, 15)
    assert (flux.policy, sd35.policy) == ("fixed:0.499", "fixed:0.192")
    assert flux.guidance_scale == sd35.guidance_scale == 5.0
    assert flux.size == sd35.size == 512


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("fluxx", {}, "unknown backbone 'fluxx'; did you mean 'flux'"),
        ("minni", {}, "did you mean 'mini'"),
        ("./nowhere", {}, r"there is no directory \./nowhere"),
        ("mini", {"model_path": "/nowhere"}, "/nowhere is not a diffusers pipeline"),
        ("mini", {"dtype": "fp17"}, "unknown dtype 'fp17'; did you mean 'fp16'"),
        ("mini", {"dtype": torch.int8}, "torch.int8 is not a dtype to run a model in"),
        ("mini", {"dtype": "fp16", "device": "cpu"}, "fp16 needs a GPU"),
        ("flux", {"scheduler": "hein"}, "unknown scheduler 'hein'; did you mean 'heun'"),
        ("flux", {"grid": "karas"}, "unknown grid 'karas'; did you mean 'karras'"),
        ("mini", {"device": "tpux"}, "unknown device 'tpux'"),
    ],
)
def test_bad_input_gets_one_clear_line(name, settings, line):
    with pytest.raises(InputError, match=line) as caught:
        load_backbone(name, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_needs_a_gpu():
    for name in ("mini", "flux"):
        with pytest.raises(InputError, match="no CUDA device"):
            load_backbone(name, device="cuda", dtype="fp16")


@pytest.fixture
def gpu(monkeypatch):
    """A machine that says that it has one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize("name", REGISTRY)
def test_each_backbone_has_the_dtype_that_it_was_published_in(name, gpu):
    in_fp16 = name in ("mini", "sd35", "sd35-large", "flux", "flux-schnell")
    expected = torch.float16 if in_fp16 else torch.bfloat16
    assert resolve_device("cuda", None, REGISTRY[name])[1] is expected
    assert resolve_device("cpu", None, REGISTRY[name])[1] is torch.float32
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert resolve_device("cuda", "fp16", REGISTRY[name])[1] is torch.float16
    told = [str(warning.message) for warning in caught]
    assert told == ([] if in_fp16 else [f"{name} overflows in fp16, to NaN and black images:"
                                        " it is published in bf16"])  # fmt: skip


def test_a_pipeline_without_a_name_has_the_dtype_of_its_family(gpu, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "asyncdiff_cli.engine.backbones.backbone.read_pipeline",
        lambda source, dtype, *_: read.append(dtype) or 1 / 0,
    )
    tiny_z_image().save_pretrained(tmp_path)
    for options in ({}, {"dtype": "fp32"}, {"quantize": "int8"}):
        with pytest.raises(ZeroDivisionError):
            load_backbone(str(tmp_path), device="cuda", **options)
    assert read == [torch.bfloat16, torch.float32, torch.bfloat16]


@pytest.fixture
def changed(pipelines, tmp_path):
    """Changes the weights of a component of a copy, which is returned."""

    def change(component, change):
        path = tmp_path / "changed"
        shutil.copytree(pipelines["sd3"], path)
        (file,) = (path / component).glob("*.safetensors")
        weights = load_file(file)
        change(weights)
        save_file(weights, file, metadata={"format": "pt"})
        return str(path)

    return change


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_3", "transformer", "vae"])
def test_a_missing_weight_is_an_error_in_every_model(changed, component):
    """transformers would go on with random ones."""
    path = changed(component, lambda weights: weights.pop(sorted(weights)[3]))
    with pytest.raises(AsyncDiffError, match="weights are missing"):
        load_backbone(path)


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
def test_a_weight_that_no_model_has_is_told(changed, component):
    path = changed(component, lambda weights: weights.update({"foreign.weight": torch.ones(2)}))
    with pytest.warns(AsyncDiffWarning, match=r"no layer for them: foreign\.weight"):
        load_backbone(path)


def test_a_setting_that_a_model_does_not_know_is_told(pipelines, tmp_path):
    path = tmp_path / "newer"
    shutil.copytree(pipelines["sd3"], path)
    file = path / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "guided_by": "time"}))
    with pytest.warns(AsyncDiffWarning, match="attributes.*guided_by.*ignored"):
        load_backbone(str(path))


@pytest.mark.parametrize("name", ["weights.safetensors", "of/weights.safetensors"])
def test_a_file_is_no_backbone(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"{name} is a file and no backbone: give it as --model-"):
        load_backbone(name)


def test_a_revision_belongs_to_a_repository(directory):
    with pytest.raises(InputError, match="revision belongs to a repository"):
        load_backbone(str(directory), revision="main")


def test_refused_before_any_weights_are_read(pipelines, tmp_path):
    for family, index in (("flux", "FluxPipeline"), ("other", "StableDiffusionPipeline")):
        (tmp_path / family).mkdir()
        (tmp_path / family / "model_index.json").write_text(json.dumps({"_class_name": index}))
    with pytest.raises(InputError, match="unknown scheduler 'eular'; did you mean 'euler'"):
        load_backbone(str(tmp_path / "flux"), scheduler="eular")
    with pytest.raises(
        InputError, match="'StableDiffusionPipeline'; did you mean 'StableDiffusion3"
    ):
        load_backbone(str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("component", "damage"),
    [
        *itertools.product(("transformer", "vae", "text_encoder"), ("cut", "garbage", "missing")),
        ("transformer", "other"),
        ("vae", "other"),
    ],
)
def test_damaged_weights_are_named(directory, component, damage):
    weights = next((directory / component).glob("*.safetensors"))
    whole = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(whole[: len(whole) // 2])
    elif damage == "garbage":
        weights.write_bytes(b"not a safetensors file" * 100)
    elif damage == "missing":
        weights.unlink()
    else:
        other = {"transformer": "vae", "vae": "transformer"}[component]
        shutil.copy(next((directory / other).glob("*.safetensors")), weights)
    with pytest.raises(AsyncDiffError, match="incomplete or corrupted") as caught:
        load_backbone(str(directory))
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_index_is_named(directory):
    (directory / "model_index.json").write_text('{"_class')
    with pytest.raises(AsyncDiffError, match=r"model_index\.json is damaged"):
        load_backbone(str(directory))


RESPONSE = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (
            GatedRepoError("403", response=RESPONSE),
            [
                "accept its licence at https://huggingface.co/black-forest-labs/FLUX.1-dev",
                "`hf auth login`",
                "--model-path",
                "`--backbone mini` needs no download",
            ],
        ),
        (RepositoryNotFoundError("404", response=RESPONSE), ["no repository", "hf auth login"]),
        (RevisionNotFoundError("404", response=RESPONSE), ["no such revision"]),
        (LocalEntryNotFoundError("offline"), ["cannot be reached", "--model-path", "mini"]),
    ],
)
def test_a_repository_that_cannot_be_had(monkeypatch, error, lines):
    def unavailable(*_, **__):
        raise error

    monkeypatch.setattr(source, "hf_hub_download", unavailable)
    with pytest.raises(AsyncDiffError) as caught:
        load_backbone("flux")
    for line in lines:
        assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def cached_repository(pipelines, tmp_path, monkeypatch) -> str:
    """The SD3 pipeline as the hub's cache holds it, offline; answers with its commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny-sd3"
    shutil.copytree(pipelines["sd3"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        value = str(tmp_path) if name == "HF_HUB_CACHE" else True
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    return commit


@pytest.mark.parametrize("revision", [None, "main", "0123456789abcdef0123456789abcdef01234567"])
def test_the_resolved_commit_is_what_was_loaded(cached_repository, revision):
    backbone = load_backbone("someone/tiny-sd3", revision=revision)
    assert backbone.revision == cached_repository
    assert backbone.fingerprint is None
    assert backbone.name == "someone/tiny-sd3"


def test_offline_without_the_files(cached_repository):
    with pytest.raises(AsyncDiffError, match="cannot be reached"):
        load_backbone("someone/else")
    with pytest.raises(AsyncDiffError, match="cannot be reached"):
        load_backbone("someone/tiny-sd3", revision="other")


def test_settings_that_are_none_are_named():
    with pytest.raises(InputError, match="unknown key 'quantise'; did you mean 'quantize'"):
        load_backbone("mini", quantise="int8")
    with pytest.raises(InputError, match="revision: Input should be a valid string, not 5"):
        load_backbone("mini", revision=5)
