"""Distances of sets against formulas written out, and the terms that they are the mean of."""

import numpy as np
import pytest
import scipy.linalg
import torch

from asyncdiff_cli.engine import InputError
from asyncdiff_cli.engine.evaluation.set_metrics import NAMES, get
from asyncdiff_cli.engine.evaluation.set_metrics.cmmd import CMMD
from asyncdiff_cli.engine.evaluation.set_metrics.fid import FID
from asyncdiff_cli.engine.evaluation.set_metrics.spectrum import RadialSpectrum, spectra
from asyncdiff_cli.engine.statistics import all_paired


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(metric, features, reference):
    return metric.against(metric.statistics(reference))(features).mean().item()


def gaussian(n, mean, deviation):
    """Features whose mean and covariance are exactly these."""
    centred = normal(n, len(mean))
    centred = centred - centred.mean(0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(centred.T.cov()).T)
    return torch.tensor(mean) + white * torch.tensor(deviation)


def test_the_frechet_distance_of_two_gaussians_is_the_closed_form():
    first = gaussian(50, [1.0, 0.0, 2.0], [1.0, 2.0, 3.0])
    second = gaussian(80, [0.0, 0.0, 0.0], [2.0, 2.0, 1.0])
    assert distance(FID, first, second) == pytest.approx(1 + 4 + 1 + 0 + 4)
    assert distance(FID, first, first) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_of_covariances_that_do_not_commute():
    first, second = normal(40, 5) @ normal(5, 5, seed=1), normal(60, 5, seed=2) + 0.5
    one, other = np.cov(first.numpy().T), np.cov(second.numpy().T)
    shift = np.square(first.mean(0).numpy() - second.mean(0).numpy()).sum()
    root = scipy.linalg.sqrtm(one @ other).real
    expected = shift + np.trace(one + other - 2 * root)
    assert distance(FID, first, second) == pytest.approx(expected)


def test_fewer_pictures_than_features_have_a_frechet_distance_too():
    few, many = normal(6, 8), normal(200, 8, seed=1)
    one, other = np.cov(few.numpy().T), np.cov(many.numpy().T)
    root = scipy.linalg.sqrtm(scipy.linalg.sqrtm(other) @ one @ scipy.linalg.sqrtm(other)).real
    shift = np.square(few.mean(0).numpy() - many.mean(0).numpy()).sum()
    expected = shift + np.trace(one + other - 2 * root)
    assert distance(FID, few, many) == pytest.approx(expected, rel=1e-5)
    assert "8 features to 6 pictures" in FID.note(6, 8)
    assert FID.note(9, 8) is None
    assert distance(FID, few[:1], many) == pytest.approx(
        (few[0] - many.mean(0)).square().sum().item() + np.trace(other)
    )


def test_a_frechet_distance_falls_with_the_number_of_pictures():
    reference = normal(4000, 16, seed=1)
    values = [distance(FID, normal(4000, 16)[:n], reference) for n in (32, 128, 1024)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 4 * values[-1]


def test_cmmd_is_the_published_formula():
    x, y = (torch.nn.functional.normalize(normal(n, 4, seed=n).float()) for n in (3, 5))

    def kernel(one, other):
        return np.exp(-(one.double() - other.double()).square().sum().item() / (2 * 10.0**2))

    def mean(first, second):
        return np.mean([[kernel(a, b) for b in second] for a in first])

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert distance(CMMD, x, y) == pytest.approx(expected, rel=1e-5)
    assert distance(CMMD, x, x) == pytest.approx(0, abs=1e-9)


SETS = {
    FID: (normal(60, 4), 0.5 + 1.5 * normal(90, 4, seed=1)),
    CMMD: (normal(60, 4), 0.5 + 1.5 * normal(90, 4, seed=1)),
    RadialSpectrum: (10 * normal(60, 4), 10 * normal(90, 4, seed=1) + 3),
}


@pytest.mark.parametrize("metric", SETS)
def test_terms_tell_what_each_picture_does_to_the_distance(metric):
    features, reference = SETS[metric]
    terms = metric.against(metric.statistics(reference))
    own = terms(features)
    whole = own.mean().item()
    without = [terms(torch.cat((features[:i], features[i + 1 :]))).mean().item() for i in range(60)]
    jackknife = 59 * (whole - np.array(without))
    assert np.corrcoef(jackknife, own.numpy() - whole)[0, 1] > 0.99
    assert jackknife.std() == pytest.approx(own.numpy().std(), rel=0.15)


def test_the_interval_covers_the_difference_that_more_pictures_have():
    """Of paired sets of which one is a little off: 19 in 20 intervals hold what 40,000 show."""
    reference = FID.statistics(normal(4000, 4, seed=1))
    terms = FID.against(reference)

    def pair(n, seed):
        noise = normal(n, 4, seed=seed)
        return noise, 1.1 * noise + 0.1 * normal(n, 4, seed=seed + 1000) + 0.05

    one, other = pair(40_000, 5)
    true = (terms(other).mean() - terms(one).mean()).item()
    sets = [[terms(part).numpy() for part in pair(300, seed)] for seed in range(10, 50)]
    found = all_paired([(other, one) for one, other in sets])
    covered = sum(difference.low <= true <= difference.high for difference in found)
    assert 34 <= covered <= 40


def test_the_spectrum_tells_blur_from_noise():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(8, 3, 64, 64, generator=generator)
    soft = torch.nn.functional.avg_pool2d(pictures, 3, 1, 1)
    noisy = pictures + 0.5 * torch.randn(pictures.shape, generator=generator)
    real = spectra(pictures)
    assert real.shape == (8, 31)
    assert distance(RadialSpectrum, real, real) == 0
    assert distance(RadialSpectrum, spectra(noisy), real) > 2
    apart = (spectra(soft) - real).mean(0)
    assert apart[:3].mean() > -2 > -8 > apart[20:].mean()
    expected = apart.square().mean().sqrt().item()
    assert distance(RadialSpectrum, spectra(soft), real) == pytest.approx(expected, rel=1e-5)


def test_white_noise_has_a_flat_spectrum():
    values = spectra(torch.randn(64, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    assert values.mean(0)[4:].std() < 0.4


@pytest.mark.parametrize("shape", [(1, 3, 16, 24), (1, 3, 2, 2)])
def test_a_spectrum_is_of_square_pictures(shape):
    with pytest.raises(InputError, match="square pictures"):
        spectra(torch.zeros(shape))


@pytest.mark.parametrize("name", NAMES)
def test_every_set_metric_tells_what_it_is(name):
    assert get(name).name == name
    assert get(name).__doc__
