"""What is given as a transformer's own file and is none, told by the file's head."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from asyncdiff_cli.engine import load_backbone
from asyncdiff_cli.engine.errors import InputError
from tests.conftest import tiny_flux, tiny_sd3


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sd3")
    tiny_sd3().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def weights(sd3):
    return load_file(sd3 / "transformer" / "diffusion_pytorch_model.safetensors")


def refusal(sd3, path):
    """The one line about a file, which names it."""
    with pytest.raises(InputError) as caught:
        load_backbone(sd3, device="cpu", model_path=path)
    line = str(caught.value)
    assert str(path) in line
    assert str(sd3) not in line
    assert "\n" not in line
    return line


def saved(path, tensors):
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".sft", ".gguf"])
@pytest.mark.parametrize(
    "content", [b"", b"no model at all", b"GGUF\x03\0\0\0", b"\x10" + b"\0" * 8]
)
def test_a_file_that_cannot_be_read(sd3, tmp_path, suffix, content):
    if suffix == ".gguf":
        pytest.importorskip("gguf")
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert f"is not a readable {suffix} file of a transformer" in refusal(sd3, path)


def test_a_file_that_ends_early(sd3, tmp_path, weights):
    path = saved(tmp_path / "model.safetensors", weights)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "incomplete" in refusal(sd3, path)


@pytest.mark.parametrize(
    "name",
    [
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
        "lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight",
        "lycoris_transformer_blocks_0.lokr_w1",
        "unet.attn.to_q.lora.up.weight",
    ],
)
def test_an_adapter(sd3, tmp_path, name):
    path = saved(tmp_path / "style.safetensors", {name: torch.zeros(2, 2)})
    assert f"is a LoRA and no transformer: give it as --lora {path}" in refusal(sd3, path)


def without_a_block(weights):
    return {n: w for n, w in weights.items() if not n.startswith("transformer_blocks.0.")}


def with_another(weights):
    return {**weights, "more.weight": torch.zeros(1)}


def of_other_sizes(weights):
    return {**weights, "proj_out.bias": torch.zeros(65)}


def of_flux(weights):
    return tiny_flux().transformer.state_dict()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without_a_block, "transformer_blocks.0.norm1.linear.weight is missing"),
        (with_another, "more.weight is not one of its own"),
        (of_other_sizes, "proj_out.bias is [65], not [64]"),
        (of_flux, "pos_embed.pos_embed is missing"),
        (lambda _: {"something.weight": torch.zeros(2)}, "this SD3Transformer2DModel"),
        (lambda _: {}, "holds no weights"),
    ],
)
def test_the_weights_of_another_model(sd3, tmp_path, weights, change, why):
    line = refusal(sd3, saved(tmp_path / "model.safetensors", change(weights)))
    assert why in line
    assert len(line) < 600


def test_weights_are_those_of_the_file_under_either_suffix(sd3, tmp_path, weights):
    louder = {name: weight * 1.5 for name, weight in weights.items()}
    for suffix in (".safetensors", ".sft"):
        path = saved(tmp_path / f"model{suffix}", louder)
        transformer = load_backbone(sd3, device="cpu", model_path=path, parts="image").pipe
        own = transformer.transformer.state_dict()
        assert all(torch.equal(own[name], louder[name]) for name in louder)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: None, "is not a diffusers pipeline: there is no such directory"),
        (lambda path: path.mkdir(), "it has no model_index.json; give a pipeline's directory"),
        (lambda path: path.write_text("x"), "is not a model: give a pipeline's directory"),
    ],
)
def test_a_path_to_nothing_of_use(sd3, tmp_path, make, line):
    make(path := tmp_path / "there")
    assert line in refusal(sd3, path)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".PTH", ".bin"])
def test_pickles_are_not_read(sd3, tmp_path, suffix):
    torch.save({"a": torch.zeros(1)}, path := tmp_path / f"model{suffix}")
    assert "is a pickle, which can hold code and is not read" in refusal(sd3, path)
