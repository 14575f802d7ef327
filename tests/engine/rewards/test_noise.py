import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asyncdiff_cli.engine import InputError, load_backbone, sample, score
from asyncdiff_cli.engine.rewards.noise import DB2_HIGH, noise_level
from asyncdiff_cli.engine.rewards.sharpness import detail

SIGMAS = (2, 4, 6, 8, 10)


@pytest.fixture(scope="module")
def clean():
    things = ("a fox", "a red apple", "a castle", "a strawberry")
    prompts = [f"{thing} on a gray background" for thing in things]
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    return sample(load_backbone("mini"), prompts, generator=generators).images


def with_noise(image, sigma, seed=0):
    pixels = np.asarray(image)
    noisy = pixels + np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))


def tiled(images):
    """Four pictures at half their size as one: their own detail, twice as dense."""
    canvas = Image.new("RGB", images[0].size)
    for index, image in enumerate(images):
        half = image.resize((64, 64), Image.Resampling.LANCZOS)
        canvas.paste(half, (index % 2 * 64, index // 2 * 64))
    return canvas


def test_the_filter_is_daubechies():
    assert np.square(DB2_HIGH).sum() == pytest.approx(1)  # keeps the deviation of white noise
    assert DB2_HIGH.sum() == pytest.approx(0)  # two vanishing moments
    assert (DB2_HIGH * range(4)).sum() == pytest.approx(0)


def test_it_falls_as_noise_is_added_to_clean_pictures(clean):
    scores = [score("noise", [with_noise(i, sigma) for i in clean]) for sigma in (0, *SIGMAS)]
    for before, after in itertools.pairwise(scores):
        assert (after < before).all()
    for sigma, values in zip(SIGMAS, scores[1:], strict=True):
        assert values.tolist() == pytest.approx([-sigma] * len(clean), rel=0.1)


def test_it_hardly_moves_with_real_detail(clean):
    before = score("noise", clean).mean()
    noisy = score("noise", [with_noise(image, 2) for image in clean]).mean()
    detailed = tiled(clean)
    assert detail(np.asarray(detailed)) > 1.5 * np.mean([detail(np.asarray(i)) for i in clean])
    assert before - score("noise", detailed) < 0.25 * (before - noisy)


@given(st.floats(1, 30), st.integers(0, 99))
def test_white_noise_is_measured(sigma, seed):
    pixels = np.random.default_rng(seed).normal(128, sigma, (96, 80, 3))
    assert noise_level(pixels) == pytest.approx(sigma, rel=0.07)


@given(st.integers(-20, 20), st.integers(-20, 20))
def test_flat_and_shaded_pictures_have_no_noise(across, down):
    y, x = np.mgrid[:32, :48]
    assert noise_level((across * x + down * y)[..., None] * np.ones(3)) == pytest.approx(
        0, abs=1e-6
    )


def test_a_picture_below_the_filter_s_size_is_refused():
    with pytest.raises(InputError, match="4×4 pixels"):
        score("noise", Image.new("RGB", (3, 50)))


def test_it_needs_no_prompt_and_pairs_up_with_those_given(clean):
    assert score("noise", clean).tolist() == score("noise", clean, ["a cat"] * 4).tolist()
    with pytest.raises(InputError, match="3 prompts for 4 images"):
        score("noise", clean, ["a cat"] * 3)
