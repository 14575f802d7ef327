import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import DiffusionPipeline
from torch import nn

from asyncdiff_cli.engine.backbones.adapters import ADAPTERS
from asyncdiff_cli.engine.backbones.memory.hollow import empty_adapter, hollow
from asyncdiff_cli.engine.backbones.memory.tracing import LiveBytes, Work, trace, without_data
from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from tests.conftest import TINY

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WORK = Work(batch=2, height=16, width=32, guidance=3.0, tokens=36)
EXACT = ("sd3", "flux", "flux2-klein", "mini")
"""Those in which no value of a tensor decides about the next operation."""


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    made = {"mini": MINI_DIRECTORY}
    for name, make in TINY.items():
        made[name] = tmp_path_factory.mktemp(name)
        make().save_pretrained(made[name])
    return made


def loaded(directory, dtype):
    pipe = DiffusionPipeline.from_pretrained(directory, torch_dtype=dtype)
    return ADAPTERS[type(pipe)](pipe)


def models(adapter):
    parts = adapter.pipe.components.items()
    return {name: part for name, part in parts if isinstance(part, nn.Module)}


def mlp():
    return nn.Sequential(nn.Linear(10, 40), nn.GELU(), nn.Linear(40, 10))


@pytest.mark.parametrize("has_data", [True, False])
def test_the_peak_of_two_layers_is_that_worked_out_by_hand(has_data):
    def run():
        model = mlp()
        with torch.no_grad(), LiveBytes() as live:
            x = torch.zeros(7, 10)
            y, peak = live.measure(model, lambda: model(x))
        return live, peak, [x, y]

    if has_data:
        live, peak, kept = run()
    else:
        with without_data(CPU):
            live, peak, kept = run()
    # of 7 rows in fp32: x, and GELU's input and output; beside them, from the outside, the first
    # layer's weight while x and its output are there, or the second's while x, in and output are
    assert peak.plain == 7 * 4 * (10 + 40 + 40)
    assert peak.dequantized == max(peak.plain, 7 * 4 * (10 + 40 + 10) + 10 * 40 * 4)
    assert live.live == 7 * 4 * (10 + 10)
    kept.clear()
    assert live.live == 0


def test_views_and_what_was_there_before_are_not_counted():
    x = torch.zeros(100)
    with LiveBytes() as live:
        y = x.view(10, 10).t()[2:]
        y.add_(1)
        assert live.live == 0
        z = y + 1
        w = z.t()
        del z
        assert live.live == live.peak.plain == 8 * 10 * 4
        del w
    assert live.live == 0


def test_a_convolution_copies_its_input_and_on_a_gpu_its_output():
    for device, copies in ((CPU, 3), (CUDA, 3 + 5)):
        with without_data(device), LiveBytes() as live:
            layer, x = nn.Conv2d(3, 5, 3, padding=1), torch.zeros(2, 3, 8, 8)
            _, peak = live.measure(layer, lambda layer=layer, x=x: layer(x))
        weights = (5 * 3 * 3 * 3 + 5) * 4  # made under the eyes of the counter here
        assert peak.plain == weights + 2 * 8 * 8 * 4 * (3 + 5 + copies)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_attention_on_a_gpu_holds_no_scores(masked, groups):
    tokens, heads, size = 1000, 8, 64
    with without_data(CUDA):
        q = torch.zeros(1, heads, tokens, size, dtype=torch.float16)
        kv = torch.zeros(1, heads // groups, tokens, size, dtype=torch.float16)
        mask = torch.ones(1, 1, 1, tokens, dtype=torch.bool) if masked else None
        with LiveBytes() as live:
            out, peak = live.measure(
                nn.Identity(),
                lambda: F.scaled_dot_product_attention(
                    q, kv, kv, attn_mask=mask, enable_gqa=groups > 1
                ),
            )
        assert out.shape == q.shape
        assert out.device.type == "cuda"
    repeated = 2 * q.nbytes if groups > 1 else 0
    seeds, bias = 2 * 8, 2 * tokens if masked else 0
    assert peak.plain == q.nbytes + repeated + seeds + bias
    assert peak.plain < heads * tokens * tokens * 2


@cache
def traced(directory, device, dtype, work=WORK):
    with without_data(device):
        return trace(empty_adapter(directory, dtype), work)


@pytest.mark.parametrize("name", ["mini", *TINY])
def test_a_pipeline_without_data_peaks_as_the_real_one(directories, name):
    real = trace(loaded(directories[name], torch.float32), WORK)
    empty = traced(directories[name], CPU, torch.float32)
    if name in EXACT:
        assert empty == real
    assert empty.keys() == real.keys()
    for part, peak in real.items():
        assert empty[part] == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("name", ["mini", *TINY])
def test_a_gpu_need_not_be_there(directories, name):
    full = traced(directories[name], CPU, torch.float32)
    half = traced(directories[name], CUDA, torch.float16)
    assert half.keys() == full.keys()
    for part, peak in full.items():
        # a GPU's convolution has one more copy, and its norms have fewer
        assert peak.plain / 4 < half[part].plain < peak.plain


def test_a_second_branch_of_the_guidance_is_counted(directories):
    def peak(name, **settings):
        work = replace(WORK, **settings)
        return traced(directories[name], CPU, torch.float32, work)["transformer"].plain

    assert peak("sd3") > 1.7 * peak("sd3", guidance=1.0)
    one = 2 * (16 * 24 // 4**2) * 16 * 4  # the velocity of the first branch
    assert peak("flux", negative=True) - peak("flux") >= one


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float16) for name in ("mini", *TINY)), ("flux", torch.bfloat16)],
)
def test_weights_have_the_shapes_and_dtypes_that_are_loaded(directories, name, dtype):
    def tensors(adapter):
        return {
            part: {
                path: (tensor.shape, tensor.dtype)
                for path, tensor in (*model.named_parameters(), *model.named_buffers())
            }
            for part, model in models(adapter).items()
        }

    with without_data(CPU):
        adapter = empty_adapter(directories[name], dtype)
    real = tensors(loaded(directories[name], dtype))
    assert tensors(adapter) == real
    for model in models(adapter).values():
        hollow(model)
        assert all(p.untyped_storage().nbytes() <= 8 for p in model.parameters())
    assert tensors(adapter) == real


def test_what_cannot_be_made_is_said(directories, tmp_path):
    with pytest.raises(AsyncDiffError, match="model_index"):
        empty_adapter(tmp_path, torch.float32)
    index = json.loads((directories["sd3"] / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(AsyncDiffError, match="there is no directory"):
        empty_adapter(tmp_path, torch.float32)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "LTXPipeline"}))
    with pytest.raises(InputError, match="LTXPipeline"):
        empty_adapter(tmp_path, torch.float32)


GROWTH = """
import json, sys, torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from asyncdiff_cli.engine.backbones.memory.tracing import LiveBytes

torch.set_num_threads(1)

def decoder():
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[64, 128], latent_channels=16, mid_block_add_attention=False)
    return vae, lambda side: vae.decode(torch.randn(1, 16, side // 2, side // 2))

def transformer():
    model = SD3Transformer2DModel(
        sample_size=64, num_layers=1, attention_head_dim=64, num_attention_heads=16,
        joint_attention_dim=64, caption_projection_dim=1024, pooled_projection_dim=64,
        pos_embed_max_size=64)
    return model, lambda side: model(
        torch.randn(6, 16, side // 8, side // 8), torch.randn(6, 77, 64), torch.randn(6, 64),
        torch.full([6], 500.0))

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(field))

model, call = {"decoder": decoder, "transformer": transformer}[sys.argv[1]]()
model.eval()
with torch.no_grad():
    call(64)  # what is set up once
    open("/proc/self/clear_refs", "w").write("5")  # the peak is now what it is
    before = status("VmRSS")
    call(512)
    grown = status("VmHWM") - before
    with LiveBytes() as live:
        peak = live.measure(model, lambda: call(512))[1].plain
print(json.dumps([grown, peak]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
@pytest.mark.parametrize("model", ["decoder", "transformer"])
def test_the_peak_is_what_a_process_grows_by(model):
    command = [sys.executable, "-c", GROWTH, model]
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # gives back what is freed
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=at_once)
    grown, peak = json.loads(run.stdout.splitlines()[-1])
    assert peak > 200 * 2**20
    assert peak == pytest.approx(grown, rel=0.05)
