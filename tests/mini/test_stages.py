"""Every stage for a few steps, and what comes out of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from asyncdiff_cli.engine import REGISTRY, load_backbone, sample
from asyncdiff_cli.engine.recipes import load_recipe
from asyncdiff_cli.engine.rewards.mini_clip import MiniClip
from asyncdiff_cli.engine.rewards.mini_quality import MiniQuality
from mini import clip, deviation, transformer
from mini.__main__ import run
from mini.data import Composer, load_concepts
from mini.deviation import noise
from mini.evaluate import load_pipeline
from mini.settings import Settings


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves what it made for the others."""
    return tmp_path_factory.mktemp("kept") / "work"


@pytest.fixture
def exported(packages: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete run, in a directory of this test's own."""
    monkeypatch.setattr(deviation, "PROMPTS", 2)
    if not kept.exists():
        (packages / "npm").mkdir()
        for package in packages.glob("*.tgz"):
            package.rename(packages / "npm" / package.name)
        run("all", Settings.smoke(), packages, packages / "mini")
        shutil.copytree(packages, kept)
    own = packages / "own"
    shutil.copytree(kept, own)
    return own / "mini"


def test_all_stages(exported: Path) -> None:
    plain = StableDiffusion3Pipeline.from_pretrained(exported)
    assert plain.transformer.config.num_layers == 2
    assert sorted(path.name for path in exported.glob("*.md")) == ["ATTRIBUTION.md", "README.md"]
    vocabulary = json.loads((exported / "vocabulary.json").read_text())
    assert vocabulary["objects"]["box"] == ["crate", "cube"]
    metrics = json.loads((exported / "metrics.json").read_text())
    assert metrics["evaluation"]["mini_top1"]["n"] == 4
    assert (
        0
        <= metrics["evaluation"]["mini_top1"]["interval"][0]
        <= metrics["evaluation"]["mini_top1"]["interval"][1]
        <= 1
    )

    backbone = load_backbone("mini", model_path=exported)
    generator = torch.Generator().manual_seed(0)
    assert sample(backbone, "a box", generator=generator).images[0].size == (128, 128)

    # what the transformer is trained on is what the pipeline feeds it, up to fp16 weights
    settings, work = Settings.smoke(), exported.parent
    composer = Composer(load_concepts(work / "npm"), settings.scenes)
    model = clip.train(composer, settings, work)
    pipe = load_pipeline(exported)
    caption = "an ice cream on a red background"
    for padding in (settings.transformer.padding, 256):
        expected = transformer.encode_captions(model, [caption], padding)
        given = pipe.encode_prompt(caption, None, None, max_sequence_length=padding)
        torch.testing.assert_close(given[0], expected[0], atol=2e-2, rtol=0)
        torch.testing.assert_close(given[2], expected[1], atol=2e-2, rtol=0)


def test_the_rewards_are_exported_with_their_measures(exported: Path) -> None:
    for name, reward_class in (("mini_clip", MiniClip), ("mini_quality", MiniQuality)):
        directory = exported.parent / name
        reward = reward_class.from_directory(directory)
        assert torch.isfinite(reward.score(Image.new("RGB", (128, 128)), "a box")).all()
        assert json.loads((directory / "metrics.json").read_text())
        assert "## Measured" in (directory / "README.md").read_text()


def test_a_run_that_was_complete_gives_the_same_weights_again(exported: Path) -> None:
    weights = (exported / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()
    run("export", Settings.smoke(), exported.parent, exported)
    again = (exported / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert weights == again


@pytest.mark.parametrize("sigma", [2.0, 5.0, 10.0])
def test_the_noise_estimate_finds_the_noise_that_was_added(sigma: float) -> None:
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(60, 190, 128)[:, None, None], (128, 128, 3))
    grey = rng.normal(0, sigma, (128, 128, 1))
    assert noise(ramp) < 0.01
    assert noise(ramp + grey) == pytest.approx(sigma, rel=0.05)


def test_the_registry_draws_as_the_modules_were_trained() -> None:
    entry, settings = REGISTRY["mini"], Settings()
    for recipe in map(load_recipe, ("mini", "mini-lifted")):
        assert entry.num_inference_steps == recipe.num_inference_steps
        assert recipe.guidance_scale in (None, entry.guidance_scale)
    assert entry.max_sequence_length == settings.transformer.padding
