"""Pipelines whose weights are saved as a variant."""

import shutil

import pytest
import torch

from asyncdiff_cli.engine import InputError, load_backbone, sample
from asyncdiff_cli.engine.backbones import weights
from asyncdiff_cli.engine.backbones.source import find_source, find_variant
from asyncdiff_cli.engine.backbones.variants import needed_variant, variants
from tests.conftest import seeded, tiny_sd3

PLAIN = ["config.json", "model.safetensors"]
SHARDS = [f"model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
OLDER = [f"model-0000{n}-of-00002.bf16.safetensors" for n in (1, 2)]


def test_names_of_weights():
    assert variants(PLAIN) == {""}
    assert variants(["model-00001-of-00002.safetensors"]) == {""}
    assert variants(["diffusion_pytorch_model.fp16.safetensors"]) == {"fp16"}
    assert variants(SHARDS) == {"fp16"}
    assert variants(OLDER) == {"bf16"}
    assert variants(["diffusion_pytorch_model.non_ema.fp16.safetensors"]) == {"non_ema.fp16"}
    assert variants(["model.safetensors.index.fp16.json", "config.json", "README"]) == set()


@pytest.mark.parametrize(
    ("files", "needed"),
    [
        ({"vae": PLAIN, "transformer": PLAIN}, None),
        ({"vae": PLAIN, "transformer": [*PLAIN, *SHARDS]}, None),
        ({"vae": PLAIN, "transformer": SHARDS, "scheduler": ["config.json"]}, "fp16"),
        ({"vae": [*OLDER, *SHARDS], "transformer": [*OLDER]}, "bf16"),
        ({"vae": [*OLDER, *SHARDS], "transformer": [*OLDER, *SHARDS]}, "bf16"),
    ],
)
def test_a_variant_is_named_where_there_is_nothing_else(files, needed):
    assert needed_variant(files) == needed


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """The same weights as they are, as a variant in shards, and in half of the components."""
    root, pipe = tmp_path_factory.mktemp("variants"), tiny_sd3()
    pipe.save_pretrained(root / "plain")
    pipe.save_pretrained(root / "variant", variant="fp16", max_shard_size="20KB")
    shutil.copytree(root / "plain", root / "mixed")
    for name in ("vae", "text_encoder"):
        shutil.rmtree(root / "mixed" / name)
        shutil.copytree(root / "variant" / name, root / "mixed" / name)
    shutil.copytree(root / "mixed", root / "other")
    for file in (root / "other" / "text_encoder").glob("*fp16*"):
        file.rename(file.with_name(file.name.replace("fp16", "ema")))
    return root


def drawn(directory):
    backbone = load_backbone(str(directory))
    return sample(backbone, "a cat", num_inference_steps=1, generator=seeded(1)).latents


@pytest.mark.parametrize("name", ["variant", "mixed"])
def test_a_saved_variant_is_loaded(pipelines, name):
    assert any((pipelines / name).rglob("*fp16-00001-of*"))
    # to rounding: how weights lie in memory depends on the files
    assert torch.allclose(drawn(pipelines / name), drawn(pipelines / "plain"), atol=1e-4)
    count = weights.parameters(pipelines / "plain")
    assert weights.parameters(pipelines / name) == count


def test_variants_of_several_names_are_named(pipelines):
    with pytest.raises(InputError, match=r"several names \(.*text_encoder: ema"):
        load_backbone(str(pipelines / "other"))


def test_a_repository_is_asked_for_its_files(pipelines, monkeypatch):
    """Until they are downloaded."""
    index = pipelines / "hub"
    index.mkdir()
    shutil.copy(pipelines / "variant" / "model_index.json", index)
    files = [f.relative_to(pipelines / "variant") for f in (pipelines / "variant").rglob("*")]
    asked = []

    def listed(api, repo, revision):
        asked.append(repo)
        return [file.as_posix() for file in files]

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", listed)
    monkeypatch.setattr(
        "asyncdiff_cli.engine.backbones.source.hf_hub_download",
        lambda *_, **__: index / "model_index.json",
    )
    assert find_variant(find_source("them/it")) == "fp16"
    shutil.copytree(pipelines / "variant", index, dirs_exist_ok=True)
    assert find_variant(find_source("them/it")) == "fp16"
    assert find_variant(find_source("sd35")) is None
    assert asked == ["them/it"]
