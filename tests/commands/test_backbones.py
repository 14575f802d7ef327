"""`asyncdiff backbones`."""

import json
import re
import shutil
import sys

import pytest
from huggingface_hub import HfApi

from asyncdiff_cli.engine import REGISTRY
from asyncdiff_cli.engine.backbones import weights
from asyncdiff_cli.engine.backbones.vocabulary import FILE
from tests.helpers.interpreter import python


@pytest.fixture
def mini(pipelines, tmp_path_factory, monkeypatch):
    """A tiny pipeline in the place of mini."""
    directory = tmp_path_factory.mktemp("mini")
    shutil.copytree(pipelines["sd3"], directory, dirs_exist_ok=True)
    words = {"objects": {"cat": ["kitten"], "hot dog": []}, "colours": ["red"], "words": ["a"]}
    (directory / FILE).write_text(json.dumps(words))
    monkeypatch.setattr(weights, "MINI_DIRECTORY", directory)
    return directory


def test_all_are_listed(asyncdiff, mini):
    outcome = asyncdiff("backbones")
    assert (outcome.code, outcome.err) == (0, "")
    for entry in REGISTRY.values():
        row = next(line for line in outcome.out.splitlines() if line.split()[:1] == [entry.name])
        assert f"{entry.num_inference_steps} steps" in row
        assert entry.licence in row
        assert ("yes" if entry.gated else "no") in row
    assert "16 px" in outcome.out
    found = {b["name"]: b for b in asyncdiff("backbones", "--json").json["backbones"]}
    assert found.keys() == REGISTRY.keys()
    assert found["mini"]["present"]
    assert found["mini"]["directory"] == str(mini)
    weight_files = list(mini.rglob("*.safetensors"))
    assert found["mini"]["bytes"] > sum(file.stat().st_size for file in weight_files) > 0
    assert found["mini"]["modules"]["lifted"].endswith("mini_lifted")
    assert (found["flux"]["policy"], found["flux"]["modules"]) == ("fixed:0.499", {})


def test_one_backbone_with_its_words(asyncdiff, mini):
    out = asyncdiff("backbones", "mini").out
    assert "cat (kitten), hot dog" in out
    assert "colours  red" in out
    assert re.search(r"^modules +learned, lifted, joint$", out, re.MULTILINE)
    vocabulary = asyncdiff("backbones", "mini", "--json").json["vocabulary"]
    assert vocabulary == json.loads((mini / FILE).read_text())


def test_a_part_that_is_missing_is_not_present(asyncdiff, mini):
    (mini / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    found = asyncdiff("backbones", "mini", "--json").json
    assert (found["present"], found["bytes"]) == (False, None)


def test_the_hub_is_asked_about_one_that_is_not_here(asyncdiff, monkeypatch):
    class Info:
        class File:
            def __init__(self, rfilename: str, size: int) -> None:
                self.rfilename, self.size = rfilename, size

        siblings = (
            File("transformer/model-00001-of-00002.safetensors", 4_000_000_000),
            File("vae/model.safetensors", 200_000_000),
            File("vae/model.fp16.safetensors", 100_000_000),
            File("text_encoders/clip.safetensors", 9_000_000_000),
            File("flux1-dev.safetensors", 20_000_000_000),
        )

    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: Info)
    assert asyncdiff("backbones", "flux", "--json").json["bytes"] == 4_200_000_000
    assert "4.2 GB" in asyncdiff("backbones", "flux").out


def test_without_a_hub_it_says_so(asyncdiff, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(HfApi, "model_info", offline)
    outcome = asyncdiff("backbones", "sd35")
    assert outcome.code == 0
    assert "unknown: the hub cannot be asked: it does not answer" in outcome.out


def test_an_unknown_name(asyncdiff):
    outcome = asyncdiff("backbones", "fluxx")
    assert (outcome.code, outcome.out) == (2, "")
    assert "unknown backbone 'fluxx'; did you mean 'flux'?" in outcome.err


def test_it_needs_no_torch():
    code = "from asyncdiff_cli.app import run; import sys; run(['backbones', '--json']); "
    done = python("-c", code + "sys.exit('torch' in sys.modules)", PYTHONPATH=":".join(sys.path))
    assert done.returncode == 0, done.stderr
