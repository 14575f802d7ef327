"""How a pipeline is held and run: what it draws stays what it was, as far as it should."""

import importlib.util
import shutil
import sys
from dataclasses import fields
from functools import partial

import diffusers
import numpy as np
import pytest
import torch
import transformers
from accelerate import dispatch_model
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers.quantizers.quantizers_utils import should_convert_module

from asyncdiff_cli.engine import AsyncDiffWarning, FixedDeviation, InputError, load_backbone, sample
from asyncdiff_cli.engine.backbones import loading, setup
from asyncdiff_cli.engine.backbones import outline as outline_module
from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.backbones.quantization import quantization
from asyncdiff_cli.engine.backbones.setup import LoRA, Setup
from asyncdiff_cli.engine.backbones.source import find_source
from tests.conftest import PROMPTS, make_case, seeded, tiny_flux, tiny_sd3
from tests.helpers.rounding import assert_rounded

CPU = torch.device("cpu")
FAMILIES = ("sd3", "flux")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="bitsandbytes needs a GPU")


def load(path, **settings):
    return load_backbone(str(path), device="cpu", **settings)


def draw(backbone, deviation=0.7):
    return sample(
        backbone,
        PROMPTS,
        FixedDeviation(deviation),
        num_inference_steps=3,
        generator=seeded(2),
        output_type="pt",
        height=16,
        width=16,
    ).images


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


# fewer bits


@pytest.mark.parametrize("quantize", ["int8", "fp8"])
def test_the_transformer_and_t5_are_quantized_and_draw_about_the_same(
    pipelines, family, quantize, monkeypatch
):
    monkeypatch.setattr(loading, "QUANTIZED_FROM", 1)
    backbone = load(pipelines[family], quantize=quantize)
    pipe = backbone.pipe
    t5 = pipe.text_encoder_3 if family == "sd3" else pipe.text_encoder_2
    for module, whether in (
        (pipe.transformer, True),
        (t5, True),
        (pipe.text_encoder, False),
        (pipe.vae, False),
    ):
        for name, layer in module.named_modules():
            if isinstance(layer, torch.nn.Linear):
                quantized = type(layer.weight).__module__.startswith("torchao")
                assert quantized == (whether and not (module is t5 and name.endswith(".wo"))), name
    drawn, full = draw(backbone), draw(load(pipelines[family]))
    error = (drawn - full).abs().mean()
    assert 0 < error < 0.02
    assert (backbone.setup.quantize, backbone.dtype) == (quantize, torch.float32)


def test_a_small_text_encoder_is_left_as_it_is(pipelines):
    t5 = load(pipelines["sd3"], quantize="int8").pipe.text_encoder_3
    assert {type(p) for p in t5.parameters()} == {torch.nn.Parameter}


@pytest.mark.parametrize(
    ("library", "source"), [(diffusers, "diffusers"), (transformers, "transformers")]
)
def test_nf4_is_asked_of_bitsandbytes(library, source):
    pytest.importorskip("bitsandbytes")
    parts = {"part": (source, "T5EncoderModel"), "other": (source, "Qwen3Model")}
    mapping = quantization("nf4", torch.float16, parts).quant_mapping
    wanted = mapping["part"]
    kept = wanted.llm_int8_skip_modules
    assert should_convert_module("encoder.block.0.layer.1.DenseReluDense.wi", kept)
    assert not should_convert_module("encoder.block.0.layer.1.DenseReluDense.wo", kept)
    assert mapping["other"].llm_int8_skip_modules is None
    assert isinstance(wanted, library.BitsAndBytesConfig)
    assert wanted.load_in_4bit
    assert (wanted.bnb_4bit_quant_type, wanted.bnb_4bit_compute_dtype) == ("nf4", torch.float16)


@NEEDS_GPU
def test_nf4_draws_about_the_same(pipelines, family):
    pytest.importorskip("bitsandbytes")
    drawn = draw(load_backbone(str(pipelines[family]), device="cuda", quantize="nf4"))
    assert (drawn.cpu() - draw(load(pipelines[family]))).abs().mean() < 0.1


def test_t5_keeps_what_overflows_under_fp16(pipelines, family, monkeypatch):
    monkeypatch.setattr(outline_module, "resolve_device", lambda *_: (CPU, torch.float16))
    pipe = load(pipelines[family]).pipe
    t5 = pipe.text_encoder_3 if family == "sd3" else pipe.text_encoder_2
    dtypes = {name: p.dtype for name, p in t5.named_parameters()}
    kept = {name for name, dtype in dtypes.items() if dtype is torch.float32}
    assert kept == {name for name in dtypes if name.endswith(".wo.weight")} != set()
    assert {p.dtype for p in pipe.transformer.parameters()} == {torch.float16}


# one thing after another


@pytest.mark.parametrize("offload", ["model", "group"])
def test_what_waits_its_turn_draws_the_same_every_time(family, offload):
    whole = make_case(family).draw(FixedDeviation(0.7))
    case = make_case(family)
    Setup(offload=offload).place(case.pipe, CPU)
    for _ in range(2):  # a hook that is lost is lost after the first image
        again = case.draw(FixedDeviation(0.7))
        assert torch.equal(again.images, whole.images)
        assert torch.equal(again.cond_sigmas, whole.cond_sigmas)


def test_sequential_leaves_no_weight_where_it_could_stay(family):
    """That it draws cannot be seen without a second device: accelerate moves CPU to CPU badly."""
    case = make_case(family)
    Setup(offload="sequential").place(case.pipe, CPU)
    assert {p.device.type for p in case.pipe.transformer.parameters()} == {"meta"}
    assert case.pipe._execution_device.type == "cpu"


def test_a_transformer_spread_by_a_device_map_draws_the_same(family, tmp_path):
    whole = make_case(family).draw(FixedDeviation(0.7))
    case = make_case(family)
    transformer = case.pipe.transformer
    places = {name: "cpu" for name, _ in transformer.named_children()}
    dispatch_model(transformer, {**places, "transformer_blocks": "disk"}, offload_dir=tmp_path)
    assert "meta" in {p.device.type for p in transformer.parameters()}
    for _ in range(2):
        assert torch.equal(case.draw(FixedDeviation(0.7)).images, whole.images)


# compiled


INDUCTOR = pytest.param(
    "inductor",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler"),
    ],
)


@pytest.mark.parametrize("backend", ["eager", INDUCTOR])
def test_compiled_blocks_draw_the_same_and_are_compiled_once(family, backend, monkeypatch):
    whole = make_case(family).draw(FixedDeviation(0.7))
    case = make_case(family)
    monkeypatch.setattr(setup, "compile_blocks", partial(setup.compile_blocks, backend=backend))
    Setup(compile=True).place(case.pipe, CPU)
    torch._dynamo.reset()
    assert_rounded(case.draw(FixedDeviation(0.7)).images, whole.images, case.terms)
    with torch.compiler.set_stance("fail_on_recompile"):
        other = case.draw(FixedDeviation(-0.3), 1.7).images
    assert not torch.equal(other, whole.images)


# attention


@pytest.mark.parametrize("attention", ["native", "_native_math"])
def test_an_attention_backend_draws_the_same(pipelines, family, attention):
    drawn = draw(load(pipelines[family], attention=attention))
    assert_rounded(drawn, draw(load(pipelines[family])), make_case(family).terms)


def test_an_attention_backend_is_of_one_model(pipelines):
    plain = load(pipelines["sd3"])
    before = _AttentionBackendRegistry.get_active_backend()
    load(pipelines["sd3"], attention="_native_math")
    assert _AttentionBackendRegistry.get_active_backend() == before
    assert draw(plain).isfinite().all()


def test_an_attention_backend_that_is_not_installed_is_named(pipelines):
    if importlib.util.find_spec("sageattention"):
        pytest.skip("sageattention is installed")
    with pytest.raises(InputError, match=r"--attention sage does not work here: .*sageattention"):
        load(pipelines["sd3"], attention="sage")


# adapters


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """Files of random adapters of each family's transformer."""
    paths = {}
    for name, make in (("sd3", tiny_sd3), ("flux", tiny_flux)):
        pipe = make()
        torch.manual_seed(1)
        targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
        config = LoraConfig(r=4, init_lora_weights=False, target_modules=targets)
        pipe.transformer.add_adapter(config)
        layers = get_peft_model_state_dict(pipe.transformer)
        path = tmp_path_factory.mktemp("lora")
        type(pipe).save_lora_weights(path, transformer_lora_layers=layers)
        paths[name] = next(path.glob("*.safetensors"))
    return paths


def test_a_lora_changes_what_is_drawn_by_its_scale(pipelines, loras, family):
    plain = draw(load(pipelines[family]))
    half, whole = (
        draw(load(pipelines[family], lora=f"{loras[family]}{at}")) for at in ("@0.5", "")
    )
    none = draw(load(pipelines[family], lora=f"{loras[family]}@0"))
    assert_rounded(none, plain, make_case(family).terms)
    assert 0 < (half - plain).abs().mean() < (whole - plain).abs().mean()


def test_loras_add_up(pipelines, loras, family):
    twice = draw(load(pipelines[family], lora=[f"{loras[family]}@0.5"] * 2))
    once = draw(load(pipelines[family], lora=(str(loras[family]),)))
    assert_rounded(twice, once, make_case(family).terms)


def test_a_lora_is_a_part_of_the_fingerprint(pipelines, loras):
    plain, with_lora = load(pipelines["sd3"]), load(pipelines["sd3"], lora=str(loras["sd3"]))
    assert plain.fingerprint != with_lora.fingerprint
    assert with_lora.setup.lora == (str(loras["sd3"]),)


def test_a_directory_of_several_loras_is_refused_with_their_names(pipelines, loras, tmp_path):
    for name in ("a", "b"):
        shutil.copy(loras["sd3"], tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match=r"holds a\.safetensors, b\.safetensors: give a file"):
        load(pipelines["sd3"], lora=str(tmp_path))
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(InputError, match="holds none: give a file"):
        load(pipelines["sd3"], lora=str(tmp_path))


def test_a_directory_may_hold_a_lora(pipelines, loras):
    from_file = draw(load(pipelines["sd3"], lora=str(loras["sd3"])))
    assert torch.equal(draw(load(pipelines["sd3"], lora=str(loras["sd3"].parent))), from_file)


@pytest.mark.parametrize(
    ("text", "source", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors@0.8", "a.safetensors", 0.8),
        ("someone/style@-1", "someone/style", -1.0),
        ("a@b/c@2", "a@b/c", 2.0),
        ("someone/style@-10", "someone/style", -10.0),
        ("style@0", "style", 0.0),
    ],
)
def test_a_lora_is_a_source_and_a_scale(text, source, scale):
    assert LoRA.parse(text) == LoRA(source, scale)


@pytest.mark.parametrize(
    ("lora", "line"),
    [
        ("nowhere.safetensors", r"there is no LoRA nowhere\.safetensors"),
        ("./no/where@0.5", r"there is no LoRA \./no/where"),
        ("no/where.safetensors", r"there is no LoRA no/where\.safetensors"),
        ("no/where.gguf@0.5", r"there is no LoRA no/where\.gguf"),
        ("style@strong", "a LoRA is SOURCE or SOURCE@SCALE, not 'style@strong'"),
        ("style@", "a LoRA is SOURCE or SOURCE@SCALE, not 'style@'"),
        ("@0.5", "'@0.5' has no source"),
        ("style@nan", r"the scale of --lora style: nan is outside \[-10, 10\]"),
        ("style@inf", "inf is outside"),
        ("style@-1e30", "-1e\\+30 is outside"),
        ("style@10.5", "10.5 is outside"),
    ],
)
def test_a_lora_that_is_not_there_is_named(pipelines, lora, line):
    with pytest.raises(InputError, match=line):
        load(pipelines["sd3"], lora=lora)


def test_a_lora_may_have_an_at_in_its_name(tmp_path):
    file = tmp_path / "style@2"
    file.write_bytes(b"")
    assert LoRA.parse(str(file)) == LoRA(str(file))
    with pytest.raises(InputError, match=r"is no \.safetensors file"):
        LoRA.parse(str(file)).check()


def renamed_lora(file, tmp_path, every):
    """A LoRA of which every so many layers are called otherwise."""
    weights = {}
    for n, (key, value) in enumerate(sorted(load_file(file).items())):
        weights[key.replace("blocks", "others") if n // 2 % every == 0 else key] = value
    save_file(weights, path := tmp_path / "renamed.safetensors")
    return path, sum("others" in key for key in weights), len(weights)


def test_what_of_a_lora_does_not_fit_is_told(pipelines, loras, family, tmp_path):
    path, left, count = renamed_lora(loras[family], tmp_path, 2)
    with pytest.warns(AsyncDiffWarning, match=rf"{left} of its {count} weights do not fit the"):
        some = draw(load(pipelines[family], lora=str(path)))
    assert 0 < left < count
    assert not torch.equal(some, draw(load(pipelines[family], lora=str(loras[family]))))
    assert not torch.equal(some, draw(load(pipelines[family])))


def test_a_lora_of_which_nothing_fits_is_refused(pipelines, loras, family, tmp_path):
    path, _, count = renamed_lora(loras[family], tmp_path, 1)
    with pytest.raises(InputError, match=rf"made for another model: none of its {count} weights"):
        load(pipelines[family], lora=str(path))


def changed(weights, change, some=("to_q.lora_A",)):
    """Weights of which some are changed, or left out for None."""
    new = {k: change(v) if any(end in k for end in some) else v for k, v in weights.items()}
    return {key: value.contiguous() for key, value in new.items() if value is not None}


LAYER = "transformer.transformer_blocks.0.attn.to_q"


@pytest.mark.parametrize(
    ("change", "some", "line"),
    [
        (
            lambda w: w[:, :7],
            ("to_q.lora_A",),
            rf"{LAYER} has \[4, 7\] and \[32, 4\], not",
        ),
        (lambda w: w[:2], ("to_q.lora_A",), rf"{LAYER} has \[2, 32\] and .*, not \[r, 32\]"),
        (lambda w: w[None], ("lora_",), rf"{LAYER} has \[1, 4, 32\] and .* and 3 more"),
        (lambda w: w[0, 0], ("lora_",), rf"{LAYER} has \[\] and \[\], not"),
        (lambda w: w.int(), ("to_q.lora_B",), f"the weights of {LAYER} are whole numbers"),
        (lambda _: None, ("to_q.lora_A",), f"{LAYER} has no lora_A"),
        (lambda _: None, ("lora_B",), f"{LAYER} has no lora_B"),
    ],
)
def test_a_lora_of_other_shapes_is_refused(pipelines, loras, tmp_path, change, some, line):
    file = tmp_path / "other.safetensors"
    save_file(changed(load_file(loras["sd3"]), change, some), file)
    with pytest.raises(InputError, match=rf"--lora .* does not fit the SD3Trans.*{line}") as caught:
        load(pipelines["sd3"], lora=str(file))
    assert "\n" not in str(caught.value)
    assert "size mismatch" not in str(caught.value)


def test_a_lora_that_lacks_a_weight_of_its_kind_is_refused(pipelines, loras, tmp_path):
    magnitude = {f"{LAYER}.lora_magnitude_vector": torch.ones(32)}  # that other layers lack
    save_file(load_file(loras["sd3"]) | magnitude, tmp_path / "dora.safetensors")
    with pytest.raises(InputError, match=r"--lora .* here: it lacks weights, such as"):
        load(pipelines["sd3"], lora=str(tmp_path))


def test_a_lora_without_weights_is_refused(pipelines, tmp_path):
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(InputError, match=r"empty\.safetensors holds no weights: those of a LoRA"):
        load(pipelines["sd3"], lora=str(tmp_path / "empty.safetensors"))


def test_a_lora_of_another_model_is_refused(pipelines, loras, tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"something.weight": torch.zeros(2)}, file)
    with pytest.raises(InputError, match=r"--lora .*other\.safetensors"):
        load(pipelines["sd3"], lora=str(file))


# files of a transformer


def test_a_transformer_may_come_from_a_file(pipelines, family, tmp_path):
    weights = load_file(next((pipelines[family] / "transformer").glob("*.safetensors")))
    changed = {name: value * 1.1 for name, value in weights.items()}
    file = tmp_path / "tuned.safetensors"
    save_file(changed, file)
    backbone = load(pipelines[family], model_path=file)
    for name, value in backbone.pipe.transformer.state_dict().items():
        assert torch.equal(value, changed[name]), name
    assert backbone.checkpoint == file
    assert backbone.fingerprint != load(pipelines[family]).fingerprint
    quantized = load(pipelines[family], model_path=file, quantize="int8")
    error = (draw(quantized) - draw(backbone)).abs().mean()
    assert 0 < error < 0.02


def test_a_transformer_may_be_gguf(pipelines, family, tmp_path):
    gguf = pytest.importorskip("gguf")
    weights = load_file(next((pipelines[family] / "transformer").glob("*.safetensors")))
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", family)
    for name, value in weights.items():
        whole = value.ndim != 2 or value.shape[-1] % 32
        kind = gguf.GGMLQuantizationType.F32 if whole else gguf.GGMLQuantizationType.Q8_0
        data = gguf.quantize(np.ascontiguousarray(value.numpy()), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    backbone = load(pipelines[family], model_path=tmp_path / "model.gguf")
    error = (draw(backbone) - draw(load(pipelines[family]))).abs().mean()
    assert 0 < error < 0.02
    with pytest.raises(InputError, match="is quantized already: leave out --quantize int8"):
        load(pipelines[family], model_path=tmp_path / "model.gguf", quantize="int8")


def test_nf4_cannot_be_made_of_a_file(pipelines, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(InputError, match=r"--quantize nf4 cannot read .* a single file"):
        find_source(str(pipelines["sd3"]), file, quantize="nf4")


def test_the_text_part_does_without_t5(tmp_path):
    made = tiny_sd3()
    made.register_modules(text_encoder_3=None, tokenizer_3=None)
    made.save_pretrained(tmp_path)
    given = dict.fromkeys(field.name for field in fields(TextConditions))
    text, whole = (
        load(tmp_path, parts=parts).adapter.encode(PROMPTS, None, given, True, None)
        for parts in ("text", "all")
    )
    assert torch.equal(text.prompt_embeds, whole.prompt_embeds)
    assert torch.equal(text.negative_prompt_embeds, whole.negative_prompt_embeds)


def test_a_file_of_another_kind_is_refused(pipelines, tmp_path):
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"single files end in \.safetensors, \.sft, \.gguf"):
        load(pipelines["sd3"], model_path=file)


# parts


@pytest.mark.parametrize("settings", [{}, {"quantize": "int8"}, {"lora": True}])
def test_text_and_image_parts_draw_what_the_whole_draws(pipelines, loras, family, settings):
    if settings.get("lora"):
        settings = {"lora": str(loras[family])}
    whole, text, image = (
        load(pipelines[family], parts=parts, **settings) for parts in ("all", "text", "image")
    )
    assert text.pipe.transformer is text.pipe.vae is None
    encoders = [n for n in image.pipe.components if n.startswith(("text_encoder", "tokenizer"))]
    assert [getattr(image.pipe, name) for name in encoders] == [None] * len(encoders)
    given = dict.fromkeys(field.name for field in fields(TextConditions))
    both = [b.adapter.encode(PROMPTS, None, given, False, None) for b in (text, whole)]
    assert torch.equal(both[0].prompt_embeds, both[1].prompt_embeds)
    drawn = [
        sample(
            backbone,
            policy=FixedDeviation(0.7),
            num_inference_steps=3,
            guidance_scale=1.0,
            generator=seeded(2),
            output_type="latent",
            height=16,
            width=16,
            prompt_embeds=both[0].prompt_embeds,
            pooled_prompt_embeds=both[0].pooled_prompt_embeds,
        ).images
        for backbone in (image, whole)
    ]
    assert torch.equal(*drawn)


# what cannot be


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"quantize": "nf5"}, "unknown quantize 'nf5'; did you mean 'nf4'"),
        ({"quantize": "nf4"}, "--quantize nf4 needs a GPU; on a CPU use int8 or fp8"),
        ({"offload": "modle"}, "unknown offload 'modle'; did you mean 'model'"),
        ({"offload": "group"}, "--offload group frees a GPU, and the device is the CPU"),
        ({"attention": "nativ"}, "unknown attention 'nativ'; did you mean 'native'"),
        ({"parts": "txt"}, "unknown parts 'txt'; did you mean 'text'"),
    ],
)
def test_bad_settings_get_one_line_before_anything_is_read(pipelines, settings, line):
    if settings.get("quantize") == "nf4":
        pytest.importorskip("bitsandbytes")
    with pytest.raises(InputError, match=line) as caught:
        load(pipelines["sd3"], **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "package"),
    [
        ({"quantize": "int8"}, "torchao"),
        ({"quantize": "nf4"}, "bitsandbytes"),
        ({"lora": ("a.safetensors",)}, "peft"),
    ],
)
def test_a_package_that_is_missing_is_named(monkeypatch, settings, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"needs {package}: pip install {package}"):
        Setup(**settings).check(torch.device("cuda"), torch.bfloat16)


@pytest.mark.parametrize(
    ("setup", "line"),
    [
        (Setup(quantize="fp8", offload="sequential"), "--offload sequential moves single layers"),
        (Setup(quantize="fp8", lora=("a",)), "--lora cannot be added to fp8 weights"),
        (Setup(quantize="int8"), "int8 overflows in fp16: give --dtype bf16"),
        (Setup(offload="group", compile=True), "--compile takes whole blocks"),
    ],
)
def test_what_does_not_go_together_is_said(setup, line, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    with pytest.raises(InputError, match=line):
        setup.check(torch.device("cuda"), torch.float16)
