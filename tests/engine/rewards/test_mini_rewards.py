"""The embedded models, as they are shipped, on pictures of mini's."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file

from asyncdiff_cli.engine import AsyncDiffError, load_backbone, load_reward, rewards, sample, score
from asyncdiff_cli.engine.rewards.embedded import ASSETS
from asyncdiff_cli.engine.rewards.mini_clip import MiniClip
from asyncdiff_cli.engine.rewards.mini_quality import MiniQuality

MEASURED = {"num_inference_steps": 8, "guidance_scale": 3.0}
PROMPTS = ["a fox", "a red rose", "a rocket", "a pizza"]


@pytest.fixture(scope="module")
def pictures():
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    return sample(load_backbone("mini"), PROMPTS, generator=generators, **MEASURED).images


def noisy(image, sigma):
    pixels = np.asarray(image)
    noise = np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).round().astype(np.uint8))


@pytest.mark.parametrize("name", ["mini_clip", "mini_quality", "mini_judge"])
def test_a_batch_is_its_pairs_one_by_one(name, pictures):
    mixed = [*pictures, pictures[0].resize((200, 90)), pictures[1].convert("L")]
    prompts = [*PROMPTS, "a fox", "a red rose"]
    singles = [score(name, *pair).item() for pair in zip(mixed, prompts, strict=True)]
    assert score(name, mixed, prompts).tolist() == pytest.approx(singles, abs=1e-5)


def test_each_picture_prefers_its_prompt(pictures):
    table = torch.stack([score("mini_clip", pictures, prompt) for prompt in PROMPTS], dim=1)
    assert table.argmax(1).tolist() == [0, 1, 2, 3]
    assert table.abs().max() <= 1
    assert len(set(table.flatten().tolist())) == table.numel()


def test_the_ground_s_colour_is_read(pictures):
    colours = ["white", "red", "yellow", "blue"]
    prompts = [f"a cat on a {colour} background" for colour in colours]
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    cats = sample(load_backbone("mini"), prompts, generator=generators, **MEASURED).images
    table = torch.stack([score("mini_clip", cats, prompt) for prompt in prompts], dim=1)
    assert table.argmax(1).tolist() == [0, 1, 2, 3]


def test_quality_falls_with_noise_and_blur(pictures):
    for degrade in (noisy, lambda i, s: i.filter(ImageFilter.GaussianBlur(s / 4))):
        ladder = [score("mini_quality", [degrade(i, s) for i in pictures]) for s in (0, 4, 8, 16)]
        assert [v.mean().item() for v in ladder] == sorted(
            (v.mean().item() for v in ladder), reverse=True
        )
        assert (ladder[-1] < ladder[0] - 0.5).all()


def test_quality_reads_no_prompt(pictures):
    assert torch.equal(score("mini_quality", pictures), score("mini_quality", pictures, PROMPTS))


def test_what_is_shipped_is_small_and_measured():
    limits = {"mini": 50e6, "mini_judge": 6e6, "mini_clip": 10e6, "mini_quality": 2e6}
    for name, limit in limits.items():
        files = [file for file in (ASSETS / name).rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) < limit
        assert "## Measured" in (ASSETS / name / "README.md").read_text()
    measured = {
        name: json.loads((ASSETS / name / "metrics.json").read_text())
        for name in ("mini_clip", "mini_quality")
    }
    assert "order" in measured["mini_clip"]
    for kind in ("noise", "blur", "ringing", "latent", "steps", "jpeg"):
        assert measured["mini_quality"][kind]["within"]["interval"][0] > 0.6


def test_the_encoder_that_conditions_mini_is_another_model():
    own = load_file(ASSETS / "mini_clip" / "model.safetensors")
    theirs = load_file(ASSETS / "mini" / "text_encoder" / "model.safetensors")
    key = "text_model.encoder.layers.0.mlp.fc1.weight"
    assert own[key].shape == theirs[key].shape
    correlation = torch.corrcoef(torch.stack([own[key].flatten(), theirs[key].flatten()]).float())
    assert correlation[0, 1].abs() < 0.05


@pytest.mark.parametrize("reward_class", [MiniClip, MiniQuality])
def test_a_broken_installation_is_one_line(reward_class, tmp_path):
    with pytest.raises(AsyncDiffError, match=r"lacks .*reinstall") as caught:
        reward_class.from_directory(tmp_path)
    assert "\n" not in str(caught.value)
    for file in (ASSETS / reward_class.name).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:200])
    with pytest.raises(AsyncDiffError):
        reward_class.from_directory(tmp_path)


@pytest.mark.parametrize("name", rewards.AVAILABLE)
def test_every_reward_tells_what_it_is(name):
    reward_class = rewards.reward_class(name)
    low, high = reward_class.range
    assert (reward_class.name, low < high) == (name, True)
    assert reward_class.__doc__
    assert rewards.entry(name).dtype == "float32"
    assert rewards.entry(name).higher_is_better == (name != "sharpness")


def test_a_reward_is_where_it_was_put():
    reward = load_reward("mini_clip", device="cpu", dtype="bf16")
    assert (reward.device.type, reward.dtype) == ("cpu", torch.bfloat16)
    assert torch.isfinite(reward.score(Image.new("RGB", (8, 8)), "a cat")).all()
