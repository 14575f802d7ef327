import dataclasses
import json
import os
from types import SimpleNamespace

import pytest
import torch
from accelerate import cpu_offload
from diffusers import DiffusionPipeline, FluxTransformer2DModel, TorchAoConfig
from diffusers.hooks import apply_group_offloading
from torch import nn
from transformers import CLIPTextConfig, T5Config, T5EncoderModel

from asyncdiff_cli.engine.backbones import weights
from asyncdiff_cli.engine.backbones.memory import advice as advice_module
from asyncdiff_cli.engine.backbones.memory import footprint as footprint_module
from asyncdiff_cli.engine.backbones.memory.advice import ALLOWANCE, advice, free_memory
from asyncdiff_cli.engine.backbones.memory.footprint import (
    GIB,
    Company,
    Component,
    Footprint,
    footprint,
    held_bytes,
)
from asyncdiff_cli.engine.backbones.memory.hollow import empty_adapter
from asyncdiff_cli.engine.backbones.memory.tracing import Work, without_data
from asyncdiff_cli.engine.backbones.quantization import quantization
from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY, OFFLOADS, QUANTIZATIONS
from asyncdiff_cli.engine.backbones.setup import Setup
from asyncdiff_cli.engine.dtypes import dtype_name
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from tests.conftest import TINY, clip_tokenizer, dynamic_shift, t5_tokenizer

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
WORK = Work(batch=1, height=16, width=16, guidance=3.0, tokens=8)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    made = {}
    for name in ("sd3", "flux"):
        made[name] = tmp_path_factory.mktemp(name)
        TINY[name]().save_pretrained(made[name])
    return made


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_the_heads_of_the_files_tell_what_is_loaded(directories, name, dtype):
    with without_data(CPU):
        pipe = empty_adapter(directories[name], dtype).pipe
    modules = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    tensors = {
        id(tensor): tensor
        for part in modules
        for tensor in part.state_dict(keep_vars=True).values()
    }
    assert len({tensor.dtype for tensor in tensors.values()}) == (
        2 if dtype is torch.float16 else 1
    )
    total = sum(tensor.nbytes for tensor in tensors.values())
    assert weights.loaded_bytes(directories[name], dtype_name(dtype)) == total


def stored_bytes(value):
    """Of all plain tensors that a tensor, or an object with tensors, is made of."""
    if isinstance(value, torch.Tensor) and hasattr(value, "__tensor_flatten__"):
        return sum(stored_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
    if isinstance(value, torch.Tensor):
        own = value.untyped_storage().nbytes()
        return own + stored_bytes(getattr(value, "quant_state", None))
    return sum(stored_bytes(x) for x in vars(value or SimpleNamespace()).values() if is_tensor(x))


def is_tensor(value):
    return isinstance(value, torch.Tensor)


def linear(bias=True):
    """Of sizes that are no multiples of a block: 41 rows of 99."""
    return nn.Linear(99, 41, bias=bias).to(torch.float16)


def test_nf4_takes_what_bitsandbytes_takes():
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear4bit(99, 41, quant_type="nf4", compress_statistics=False)
    layer.load_state_dict(linear().state_dict())
    layer.to("cpu")  # quantizes
    own = linear()
    held = held_bytes(own, "nf4")
    assert held[id(own.weight)] == stored_bytes(layer.weight)
    # half a byte a weight, rounded up; an fp32 scale for each 64; the 16 values in fp32
    assert stored_bytes(layer.weight) == 2030 + 4 * 64 + 64
    assert held[id(own.bias)] == 41 * 2


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_8_bits_take_what_torchao_takes(name):
    quantization = pytest.importorskip("torchao.quantization")
    kinds = {
        "int8": quantization.Int8WeightOnlyConfig,
        "fp8": quantization.Float8WeightOnlyConfig,
    }
    layer, own = linear(), linear()
    quantization.quantize_(layer, kinds[name]())
    assert held_bytes(own, name)[id(own.weight)] == stored_bytes(layer.weight)
    assert stored_bytes(layer.weight) == 41 * 99 + 41 * {"int8": 5, "fp8": 4}[name]


@pytest.mark.parametrize("name", QUANTIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_text_encoder_takes_what_transformers_loads(directories, name, dtype):
    """T5's layers `wo` are left out: they are fp32 under fp16 and bf16 under bf16."""
    pytest.importorskip("bitsandbytes" if name == "nf4" else "torchao")
    parts = {"t5": ("transformers", "T5EncoderModel")}
    config = quantization(name, dtype, parts).quant_mapping["t5"]
    real = T5EncoderModel.from_pretrained(
        directories["flux"] / "text_encoder_2", quantization_config=config, dtype=dtype
    )
    with without_data(CPU):
        module = empty_adapter(directories["flux"], dtype).pipe.text_encoder_2
    assert sum(held_bytes(module, name).values()) == sum(map(stored_bytes, real.parameters()))


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_a_transformer_takes_what_diffusers_loads(directories, name):
    quantization = pytest.importorskip("torchao.quantization")
    kinds = {
        "int8": quantization.Int8WeightOnlyConfig,
        "fp8": quantization.Float8WeightOnlyConfig,
    }
    real = FluxTransformer2DModel.from_pretrained(
        directories["flux"] / "transformer",
        quantization_config=TorchAoConfig(kinds[name]()),
        torch_dtype=torch.bfloat16,
    )
    with without_data(CPU):
        module = empty_adapter(directories["flux"], torch.bfloat16).pipe.transformer
    assert sum(held_bytes(module, name).values()) == sum(map(stored_bytes, real.parameters()))


def test_the_layers_for_nf4_are_those_that_diffusers_replaces(directories):
    bnb = pytest.importorskip("bitsandbytes")
    from diffusers import BitsAndBytesConfig
    from diffusers.quantizers.bitsandbytes.utils import replace_with_bnb_linear

    module = FluxTransformer2DModel.from_pretrained(directories["flux"] / "transformer")
    layers = footprint.quantized_layers(module, "nf4")
    ours = {name for name, part in module.named_modules() if any(part is x for x in layers)}
    replace_with_bnb_linear(module, [], quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    theirs = {n for n, part in module.named_modules() if isinstance(part, bnb.nn.Linear4bit)}
    assert ours == theirs != set()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_weights_are_those_of_the_loaded_pipeline(directories, dtype):
    pipe = DiffusionPipeline.from_pretrained(directories["flux"], torch_dtype=dtype)
    real = {
        name: sum(tensor.nbytes for tensor in (*part.parameters(), *part.buffers()))
        for name, part in pipe.components.items()
        if isinstance(part, nn.Module)
    }
    found = footprint(directories["flux"], dtype, WORK, device="cpu")
    assert {part.name: part.weights for part in found.components} == real
    assert found.weights == sum(real.values())


@pytest.mark.parametrize("name", ["mini", "sd3", "flux"])
def test_the_headers_of_the_files_and_the_configuration_agree(directories, name):
    directory = MINI_DIRECTORY if name == "mini" else directories[name]
    with without_data(CPU):
        pipe = empty_adapter(directory, torch.float32).pipe
    numbers = {}
    for part, model in pipe.components.items():
        if isinstance(model, nn.Module):
            stored = {id(x): x.numel() for x in model.state_dict(keep_vars=True).values()}
            numbers[part] = sum(stored.values())
    assert weights.component_parameters(directory) == numbers
    assert weights.parameters(directory) == sum(numbers.values())


def test_without_files_there_is_nothing_to_read(tmp_path):
    with pytest.raises(AsyncDiffError, match="no safetensors"):
        weights.component_parameters(tmp_path)


FILES = {
    "model_index.json": 500,
    "flux1-dev.safetensors": 9000,
    "transformer/config.json": 5,
    "transformer/model-00001-of-00002.safetensors": 3000,
    "transformer/model-00002-of-00002.safetensors": 1000,
    "transformer/model.fp16.safetensors": 700,
    "vae/model.safetensors": 160,
    "vae/model.bin": 170,
    "tokenizer/vocab.txt": 7,
}


def test_a_repository_tells_the_bytes_of_each_component(monkeypatch):
    import huggingface_hub

    files = [SimpleNamespace(rfilename=name, size=size) for name, size in FILES.items()]
    info = SimpleNamespace(siblings=files)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **options: info)
    sizes = {"transformer": 4005, "vae": 160, "tokenizer": 7}
    assert weights.download_sizes("them/flux") == sizes
    assert weights.download_size("them/flux") == sum(sizes.values())


PARTS_OF_T5 = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("others", "kept"),
    [
        # of stable-diffusion-3.5-medium, which has T5 in fp32 and fp16
        (
            [
                *("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"),
                "model.safetensors.index.fp16.json",
            ],
            [*PARTS_OF_T5, INDEX],
        ),
        (["model-00001-of-00002.fp16.safetensors", "model.fp16.safetensors.index.json"],
         [*PARTS_OF_T5, INDEX]),
        (["pytorch_model-00001-of-00003.bin", "pytorch_model.bin.index.json", "model.onnx"],
         [*PARTS_OF_T5, INDEX]),
        (["flax_model.msgpack", "model.bf16.safetensors"], [*PARTS_OF_T5, INDEX]),
        (["model.safetensors"], ["model.safetensors", INDEX]),
    ],
)  # fmt: skip
def test_the_same_weights_are_counted_once(others, kept):
    names = [*others, *PARTS_OF_T5, INDEX]
    assert sorted(weights.loaded(names)) == sorted(kept)


def test_a_variant_or_another_format_counts_where_there_is_no_other():
    parts = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]
    assert weights.loaded([*parts, "config.json"]) == [*parts, "config.json"]
    both = ["model.bf16.safetensors", "model.fp16.safetensors"]
    assert weights.loaded(both) == both[:1]
    assert weights.loaded(["diffusion_pytorch_model.bin"]) == ["diffusion_pytorch_model.bin"]


def test_a_configuration_is_all_but_the_weights(monkeypatch):
    import huggingface_hub

    def download(repo, revision, allow_patterns):
        kept = huggingface_hub.utils.filter_repo_objects(FILES, allow_patterns=allow_patterns)
        assert list(kept) == ["model_index.json", "transformer/config.json", "tokenizer/vocab.txt"]
        return f"/cache/{repo}/{revision}"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert str(weights.download_configuration("them/flux", "main")) == "/cache/them/flux/main"


PARTS = (
    Component("text_encoder", 10, group=4, layer=3, resident=1, activations=2),
    Component("transformer", 40, group=8, layer=5, resident=2, activations=6),
    Component("vae", 5, group=5, layer=2, resident=0, activations=20),
)


@pytest.mark.parametrize(
    ("offload", "encode_first", "peak"),
    [
        ("none", False, 10 + 40 + 5 + 20),
        ("none", True, 40 + 5 + 20),
        ("model", False, 40 + 6),
        ("model", True, 40 + 6),
        ("group", False, 5 + 20),
        ("group", True, 5 + 20),
        ("sequential", False, 1 + 2 + 0 + 2 + 20),
        ("sequential", True, 2 + 0 + 2 + 20),
    ],
)
def test_the_peak_is_that_of_the_largest_turn(offload, encode_first, peak):
    assert Footprint(PARTS, torch.float16, None, offload, encode_first).peak == peak


def test_encoding_first_can_be_the_larger_turn():
    text = Component("text_encoder_2", 90, group=4, layer=3, resident=1, activations=2)
    assert Footprint((*PARTS, text), torch.float16, None, "none", True).peak == 10 + 90 + 2


@pytest.mark.parametrize(
    ("offload", "rewards", "in_turns", "peak"),
    [
        ("none", (7, 9), False, 40 + 5 + 20 + 16),  # all of them beside what draws
        ("none", (7, 9), True, 40 + 5 + 20),  # one, where activations were
        ("none", (7, 29), True, 40 + 5 + 29),
        ("model", (7, 9), False, 40 + 6 + 16),
        ("model", (7, 70), True, 70),
        ("sequential", (7, 90), True, 2 + 90),
    ],
)
def test_rewards_count_beside_what_draws(offload, rewards, in_turns, peak):
    company = Company(rewards, in_turns)
    made = Footprint(PARTS, torch.float16, None, offload, True, company=company)
    assert made.peak == peak
    text = Component("text_encoder_2", 900, group=4, layer=3, resident=1, activations=2)
    early = Footprint((*PARTS, text), torch.float16, None, "none", True, company=company)
    assert early.peak == 10 + 900 + 2  # they are encoded with before the rewards are there


class Blocks(nn.Module):
    """Blocks of 8, 12 and 16 bytes, a head of 4, and a parameter of 2 of its own."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(n, 1, bias=False) for n in (2, 3, 4))
        self.head = nn.Linear(1, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(1, dtype=torch.float16))


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        # head and scale as long as the model runs, beside a block, and the next one
        ({"offload_type": "block_level", "num_blocks_per_group": 1}, 4 + 2 + 16 + 12),
        ({"offload_type": "block_level", "num_blocks_per_group": 2}, 4 + 2 + 8 + 12 + 16),
        ({"offload_type": "leaf_level"}, 2 + 16 + 12),  # the scale alone stays
    ],
)
def test_a_group_is_counted_as_diffusers_forms_it(level, expected):
    model = Blocks()
    apply_group_offloading(model, CPU, CPU, **level)
    assert footprint_module._group_bytes(model, held_bytes(model)) == expected


@pytest.mark.parametrize("name", ["transformer", "text_encoder"])
def test_what_accelerate_leaves_on_the_device_is_resident(directories, name):
    part = getattr(DiffusionPipeline.from_pretrained(directories["sd3"]), name)
    found = {c.name: c for c in footprint(directories["sd3"], torch.float32, WORK).components}
    largest = max(sum(p.nbytes for p in m.parameters(recurse=False)) for m in part.modules())
    assert found[name].layer == largest
    cpu_offload(part, CPU, offload_buffers=len(part._parameters) > 0)
    left = [x for x in (*part.parameters(), *part.buffers()) if x.device.type != "meta"]
    assert found[name].resident == sum(x.nbytes for x in left) > 0


@pytest.fixture
def flux_dev(tmp_path):
    """The configurations of FLUX.1-dev: 12 billion weights that are nowhere."""
    ours = {
        "transformer": {
            "_class_name": "FluxTransformer2DModel",
            "attention_head_dim": 128,
            "guidance_embeds": True,
            "in_channels": 64,
            "joint_attention_dim": 4096,
            "num_attention_heads": 24,
            "num_layers": 19,
            "num_single_layers": 38,
            "pooled_projection_dim": 768,
        },
        "vae": {
            "_class_name": "AutoencoderKL",
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "latent_channels": 16,
            "layers_per_block": 2,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
            "use_post_quant_conv": False,
            "use_quant_conv": False,
        },
        "text_encoder": CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768
        ).to_dict(),
        "text_encoder_2": T5Config(
            d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
        ).to_dict(),
    }
    for name, config in ours.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    clip_tokenizer().save_pretrained(tmp_path / "tokenizer")
    t5_tokenizer().save_pretrained(tmp_path / "tokenizer_2")
    dynamic_shift().save_pretrained(tmp_path / "scheduler")
    classes = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    index = json.dumps({"_class_name": "FluxPipeline", **classes})
    (tmp_path / "model_index.json").write_text(index)
    return tmp_path


def test_flux_takes_what_has_been_measured(flux_dev, monkeypatch):
    """Peaks and loaded weights of FLUX.1-dev on an H100 at 1024×1024 in bf16, which are public:
    huggingface.co/datasets/derekl35/diffusers-quantization-benchmarks (reserved memory, GiB)."""
    work = Work(batch=1, height=1024, width=1024, guidance=3.5)

    def found(quantize, offload):
        return footprint(flux_dev, torch.bfloat16, work, quantize, offload)

    parameters = {part.name: part.weights // 2 for part in found(None, "none").components}
    assert parameters["transformer"] == 11_901_408_320
    assert parameters["text_encoder_2"] == 4_762_310_656
    assert found(None, "none").weights / GIB == pytest.approx(31.447, rel=0.005)
    # those with T5 in 8 bits are left out: transformers kept more of it in 16 bits at that time
    for quantize, offload, measured in (
        (None, "none", 36.166),
        (None, "model", 23.271),
        ("int8", "model", 12.189),
        ("fp8", "model", 12.348),
    ):
        needed = advice_module.needs(found(quantize, offload), CUDA) / GIB
        assert needed == pytest.approx(measured, rel=0.06)

    monkeypatch.setattr(advice_module, "free_memory", lambda device: 22 * GIB)
    monkeypatch.setattr(Setup, "check", lambda *_: None)
    line = advice("flux", flux_dev, CUDA, torch.bfloat16, work)
    assert line.startswith("flux needs about 35.0 GiB in bf16 and cuda:0 has 22.0 GiB free: ")
    assert "--quantize int8 (20.6 GiB)" in line


@pytest.fixture
def machine(monkeypatch):
    """A GPU and a computer, and a model whose sizes are plain: 32 GiB in fp16, half of it text."""
    settings = SimpleNamespace(gpu=24.0, host=128.0, refused=set(), measured=[])
    scale = {None: 1.0, "int8": 0.5, "fp8": 0.5, "nf4": 0.3}

    def measured(directory, dtype, work, quantize, offload, encode_first, device):
        settings.measured.append((dtype, quantize, offload))
        size = int(16 * GIB * scale[quantize] * dtype.itemsize / 2)
        parts = [
            Component(name, size, GIB // 2, GIB // 2, resident=0, activations=work.batch * GIB)
            for name in ("text_encoder", "transformer")
        ]
        return Footprint(tuple(parts), dtype, quantize, offload, encode_first)

    def check(setup, device, dtype):
        if device.type == "cpu" and (setup.offload != "none" or setup.quantize == "nf4"):
            raise InputError("needs a GPU")
        if setup.quantize in settings.refused or (setup.quantize and setup.offload == "sequential"):
            raise InputError("is not installed")

    def free(device):
        return int((settings.gpu if device.type == "cuda" else settings.host) * GIB)

    monkeypatch.setattr(advice_module, "is_small", lambda directory, dtype: False)
    monkeypatch.setattr(advice_module, "footprint", measured)
    monkeypatch.setattr(advice_module, "free_memory", free)
    monkeypatch.setattr(Setup, "check", check)
    return settings


def advised(device=CUDA, dtype=torch.float16, *rest, **settings):
    return advice("big", MINI_DIRECTORY, device, dtype, WORK, *rest, **settings)


def test_what_fits_needs_no_advice(machine):
    machine.gpu = 33 + ALLOWANCE / GIB + 0.01
    assert advised() is None
    assert machine.measured == [(torch.float16, None, "none")]
    machine.gpu -= 0.02
    assert advised() is not None
    machine.gpu = 16 + 1 + ALLOWANCE / GIB + 0.01
    assert advised(encode_first=True) is None


def test_the_line_names_three_choices_from_the_least_costly(machine):
    # int8 would not need less than the first, and others have an option more than one before
    assert advised() == (
        "big needs about 34.2 GiB in fp16 and cuda:0 has 24.0 GiB free: --offload model (18.2 GiB),"
        " --quantize nf4 (11.8 GiB) or --offload group (2.7 GiB) would fit"
    )


def test_choices_that_do_not_fit_or_work_are_left_out(machine):
    machine.gpu = 12
    assert advised().endswith(
        ": --quantize nf4 (11.8 GiB), --dtype bf16 --quantize int8 --offload model (10.2 GiB) or"
        " --offload group (2.7 GiB) would fit"
    )
    machine.refused = {"nf4"}
    assert advised().endswith(
        ": --dtype bf16 --quantize int8 --offload model (10.2 GiB) or --offload group (2.7 GiB)"
        " would fit"
    )
    machine.host = 31  # is to hold all weights of what is offloaded
    assert advised().endswith(": --dtype bf16 --quantize int8 --offload model (10.2 GiB) would fit")


def test_what_is_chosen_already_stays(machine):
    machine.gpu = 10
    line = advised(CUDA, torch.float16, Setup(quantize="fp8", offload="model"))
    assert line == (
        "big needs about 10.2 GiB in fp16 with --quantize fp8 --offload model and cuda:0 has"
        " 10.0 GiB free: --quantize nf4 (7.0 GiB) or --offload group (2.7 GiB) would fit"
    )
    assert {quantize for _, quantize, _ in machine.measured} == {"fp8", "nf4"}
    assert {offload for _, _, offload in machine.measured} == {"model", "group"}


def test_fp32_can_be_halved(machine):
    machine.gpu = 40
    assert advised(CUDA, torch.float32).startswith(
        "big needs about 66.2 GiB in fp32 and cuda:0 has 40.0 GiB free: --dtype fp16 (34.2 GiB),"
    )


def test_advice_names_rewards_in_turns_and_smaller_batches(machine):
    company = Company((int(4 * GIB), int(7 * GIB)), False, "offload_rewards=true", "batch=")
    four = dataclasses.replace(WORK, batch=4)

    def line(gpu, company):
        machine.gpu = gpu
        return advice(
            "big", MINI_DIRECTORY, CUDA, torch.float16, four, encode_first=True, company=company
        )

    assert line(16 + 4 + 11 + ALLOWANCE / GIB + 0.01, company) is None
    assert line(30, company) == (
        "big and rewards of 11.0 GiB needs about 32.2 GiB in fp16 and cuda:0 has 30.0 GiB free:"
        " batch=1 (29.2 GiB), offload_rewards=true (24.2 GiB) or --quantize nf4 (21.0 GiB) would"
        " fit"
    )
    turns = dataclasses.replace(company, offload=True)
    assert line(20, turns).startswith(
        "big and rewards of 11.0 GiB needs about 24.2 GiB in fp16 with offload_rewards=true and"
    )


def test_a_small_model_with_large_rewards_is_advised_on(machine, monkeypatch):
    monkeypatch.setattr(advice_module, "is_small", lambda *_: True)
    assert advised() is None
    machine.gpu = 17
    assert "offload" in advised(company=Company((GIB + 1,)), encode_first=True)


def test_on_a_cpu_nothing_is_offloaded(machine):
    machine.host = 40
    assert advised(CPU, torch.float32) == (
        "big needs about 65.0 GiB in fp32 and cpu has 40.0 GiB free: --dtype bf16 (33.0 GiB)"
        " would fit"
    )
    machine.host = 10
    assert advised(CPU, torch.float32) == (
        "big needs about 65.0 GiB in fp32 and cpu has 10.0 GiB free: nothing fits;"
        " --dtype bf16 --quantize int8 (17.0 GiB) needs the least"
    )


def test_if_nothing_fits_the_least_is_named(machine):
    machine.gpu = 1
    assert advised().endswith(": nothing fits; --offload group (2.7 GiB) needs the least")
    assert advised(CUDA, torch.float16, Setup(offload="sequential")).endswith(
        ": nothing needs less"
    )


def test_what_is_asked_for_forbids_choices(machine, monkeypatch):
    refused = machine.refused

    def check(setup, device, dtype):
        if setup.lora and setup.quantize in ("int8", "fp8"):
            refused.add((setup.quantize, setup.lora))
            raise InputError("no adapter on such weights")

    monkeypatch.setattr(Setup, "check", check)
    line = advised(CUDA, torch.float16, Setup(lora=("a",)))
    assert refused == {("int8", ("a",))}
    assert "int8" not in line


def test_nf4_is_made_on_the_gpu_whatever_waits_later():
    parts = (
        Component("text_encoder", 5, 1, 1, 0, 1, is_large=True),
        Component("transformer", 6, 1, 1, 0, 1, is_large=True),
        Component("vae", 1, 1, 1, 0, 1),
    )
    for first, peak in ((False, 11), (True, 6)):
        found = Footprint(parts, torch.bfloat16, "nf4", "group", first)
        assert found.peak == peak
        assert Footprint(parts, torch.bfloat16, "int8", "group", first).peak == 2


def test_a_small_model_is_not_traced(monkeypatch):
    monkeypatch.setattr(advice_module, "footprint", None)
    assert advice("mini", MINI_DIRECTORY, CPU, torch.float32, WORK) is None


def test_a_model_that_cannot_be_traced_is_said(directories, monkeypatch):
    def fail(adapter, work):
        raise RuntimeError("the next step\ndepends on the data")

    monkeypatch.setattr(footprint_module, "trace", fail)
    footprint_module._survey.cache_clear()
    with pytest.raises(AsyncDiffError, match="cannot be traced"):
        footprint(directories["sd3"], torch.float32, WORK)


def test_a_survey_is_made_once(directories, monkeypatch):
    made = footprint(directories["sd3"], torch.float32, WORK)
    monkeypatch.setattr(footprint_module, "trace", None)
    for quantize in (None, *QUANTIZATIONS):
        for offload in OFFLOADS:
            other = footprint(directories["sd3"], torch.float32, WORK, quantize, offload)
            assert other.weights <= made.weights


def test_free_memory_of_a_gpu_has_what_the_process_keeps_without_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4)
    assert free_memory(CUDA) == 10 + 7 - 4


def test_free_memory_of_a_machine_is_a_part_of_it():
    assert 0 < free_memory(CPU) < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
