import numpy as np
import pytest
import torch

from mini.measures import frechet, frechet_summary, spearman, spectrum, spectrum_error, summary


def test_the_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(60_000, 3, generator=generator)
    second = 2 * torch.randn(60_000, 3, generator=generator) + torch.tensor([1.0, 0.0, 2.0])
    assert frechet(first, second) == pytest.approx(5 + 3 * (2 - 1) ** 2, rel=0.02)
    assert frechet(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet_summary(first[:200], second)["n"] == 200


def test_the_spectrum_tells_blur_from_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(8, 3, 64, 64, generator=generator)
    soft = torch.nn.functional.avg_pool2d(pictures, 3, 1, 1)
    noisy = pictures + 0.5 * torch.randn(pictures.shape, generator=generator)
    real = spectrum(pictures)
    assert spectrum_error(real, real)["mean"] == 0
    assert spectrum_error(spectrum(noisy), real)["mean"] > 2
    low, high = spectrum_error(spectrum(soft), real)["detail"]["interval"]
    assert low < high < -5
    apart = (spectrum(soft) - real).mean(0)
    assert apart[:3].mean() > -2 > -8 > apart[20:].mean()


def test_white_noise_has_a_flat_spectrum() -> None:
    values = spectrum(torch.randn(64, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    assert values.shape == (64, 63)
    assert values.mean(0)[4:].std() < 0.4


def test_spearman_knows_ties_and_reads_ranks_only() -> None:
    one = np.array([1.0, 2.0, 2.0, 3.0])
    assert spearman(one, np.exp(one)) == pytest.approx(1.0)
    assert spearman(one, -one) == pytest.approx(-1.0)
    assert spearman(np.arange(5.0), np.array([0.0, 2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.8)


def test_a_summary_brackets_its_mean() -> None:
    row = summary([0.0, 1.0] * 50)
    low, high = row["interval"]
    assert row["mean"] == 0.5
    assert 0.38 < low < 0.5 < high < 0.62
