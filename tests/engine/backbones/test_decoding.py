"""Pictures out of latents: in slices, and of finite numbers."""

import warnings

import pytest
import torch
from accelerate import cpu_offload

from asyncdiff_cli import app
from asyncdiff_cli.engine import AsyncDiffError, AsyncDiffWarning, sample
from asyncdiff_cli.engine.backbones.adapters import SD3Adapter
from asyncdiff_cli.engine.backbones.adapters.decoding import SLICE
from asyncdiff_cli.engine.backbones.setup import Setup
from tests.conftest import make_case, quiet, tiny_sd3

INF = float("inf")
CPU = torch.device("cpu")
OFFLOAD = {
    "none": lambda pipe: None,
    "model": lambda pipe: Setup(offload="model").place(pipe, CPU),
    "group": lambda pipe: Setup(offload="group").place(pipe, CPU),
    "sequential": lambda pipe: cpu_offload(pipe.vae, CPU),
}


@pytest.fixture
def adapter():
    return SD3Adapter(quiet(tiny_sd3()))


def latents(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 16, 4, 4, generator=generator)


def decode(adapter, values, output_type="pt"):
    with torch.no_grad():
        return adapter.decode(values, 8, 8, output_type)


def test_a_vae_that_returns_infinity_stops_whoever_asks(tmp_path, capsys):
    pipe = tiny_sd3()
    pipe.vae.decoder.conv_in.bias.data.fill_(INF)
    pipe.save_pretrained(tmp_path / "model")
    model = ["--backbone", str(tmp_path / "model"), "--steps", "1", "--size", "16"]
    assert app.run(["sample", "a cat", *model, "--out", str(tmp_path / "drawn")]) == 1
    evaluated = ["eval", "--policies", "baseline", "--rewards", "noise", "--limit", "1", *model]
    assert app.run([*evaluated, "--dataset", "mini", "--out", str(tmp_path / "store")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert sum("NaN or infinity in image 1 as it is decoded" in line for line in errors) == 2
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("name", ["sd3", "flux", "flux2", "qwen-image", "z-image"])
def test_every_family_looks_at_what_it_decodes(name):
    case = make_case(name)
    decoder = case.pipe.vae.decoder.conv_out
    decoder.bias.data[0] = float("nan")
    with pytest.raises(AsyncDiffError, match="image 1 as it is decoded"):
        case.draw(num_inference_steps=2)


@pytest.mark.parametrize("offload", OFFLOAD)
def test_what_overflows_in_fp16_is_decoded_in_fp32_by_itself(adapter, offload):
    vae, whole = adapter.pipe.vae.half(), SD3Adapter(quiet(tiny_sd3()))
    vae.decoder.conv_in.weight.data.mul_(100)
    vae.use_slicing = whole.pipe.vae.use_slicing = True
    whole.pipe.vae.load_state_dict(vae.state_dict())
    OFFLOAD[offload](adapter.pipe)
    small, large = latents(2).half().split(1)
    values = torch.cat([small, 4000 * large])
    for _ in range(2):  # what holds the weights is as it was
        with pytest.warns(AsyncDiffWarning, match="overflows in fp16"):
            images = decode(adapter, values)
        assert adapter.pipe.vae is vae
        assert vae.dtype is torch.float16
        assert torch.equal(images[:1], decode(adapter, torch.cat([small, small]))[:1])
        expected = decode(whole, values[1:].float())
        assert torch.allclose(images[1:].float(), expected, atol=1e-3)  # of fp16


def test_what_is_damaged_is_an_error_in_fp16_too(adapter):
    adapter.pipe.vae.half().decoder.conv_in.bias.data.fill_(INF)
    with pytest.warns(AsyncDiffWarning), pytest.raises(AsyncDiffError, match="image 1"):
        decode(adapter, latents(1).half())
    assert adapter.pipe.vae.dtype is torch.float16


@pytest.mark.parametrize("output_type", ["pt", "pil"])
def test_a_slice_that_does_not_fit_is_halved_and_nothing_is_lost(adapter, output_type, monkeypatch):
    parts = latents(7).split(2)  # the slices of the same shapes are the same to the bit
    expected = [image for part in parts for image in decode(adapter, part, output_type)]
    sizes, decoded = [], adapter.pipe.vae.decode

    def limited(values, **options):
        sizes.append(len(values))
        if len(values) > 2:
            raise torch.OutOfMemoryError
        return decoded(values, **options)

    monkeypatch.setattr(adapter.pipe.vae, "decode", limited)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = decode(adapter, latents(7), output_type)
    assert sizes == [4, 2, 2, 2, 1]
    if output_type == "pil":
        assert [image.tobytes() for image in images] == [image.tobytes() for image in expected]
    else:
        assert torch.equal(images, torch.stack(expected))


def test_a_call_decodes_its_batch_as_the_stock_pipeline_does(monkeypatch):
    case, sizes = make_case("sd3"), []
    decoded = case.pipe.vae.decode

    def counted(values, **options):
        sizes.append(len(values))
        return decoded(values, **options)

    monkeypatch.setattr(case.pipe.vae, "decode", counted)
    settings = {**case.ours, "num_inference_steps": 1, "output_type": "pt"}
    sample(case.backbone, ["a cat"] * (SLICE + 1), **settings)
    assert sizes == [SLICE + 1]


def test_one_image_that_does_not_fit_is_an_error(adapter, monkeypatch):
    def full(values, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(adapter.pipe.vae, "decode", full)
    with pytest.raises(AsyncDiffError, match="out of memory while decoding one image"):
        decode(adapter, latents(2))
