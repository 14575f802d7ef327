"""How much a field relies on the time it is told, where that is known."""

from itertools import pairwise

import pytest
import torch

from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
from asyncdiff_cli.engine.policies.spectra import Spectrum
from asyncdiff_cli.engine.policies.transfer import velocity_coefficient
from asyncdiff_cli.engine.schedules.calibration import Images
from asyncdiff_cli.engine.schedules.reliance import exact_change, reliance_of
from tests.helpers.spectra import component_std

STEPS = 5
SPECTRUM = Spectrum.of_images()
STD = component_std(SPECTRUM, 32)


def made():
    scheduler = make_scheduler("euler", "sd3", {"shift": 3.0})
    scheduler.set_timesteps(STEPS)
    return scheduler


def exact(latents, timestep, sigma, cond_sigma):
    """The velocity of Gaussian data of the spectrum of images."""
    factor = velocity_coefficient(cond_sigma.double()[:, None, None, None], STD)
    return torch.fft.ifft2(torch.fft.fft2(latents) * factor).real


def deaf(latents, timestep, sigma, cond_sigma):
    """The same, which goes by the latents' own time."""
    return exact(latents, timestep, sigma, sigma.expand(len(latents)))


def measured(velocity):
    noise = torch.randn(6, 4, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    return reliance_of([Images(velocity, part) for part in noise.split(4)], made, SPECTRUM)


def test_an_exact_field_relies_on_all_of_it():
    """At first to the statistics of 6·4·32² numbers; later its latents have lost a little."""
    found = measured(exact)
    assert len(found) == STEPS - 1
    assert found[0].share == pytest.approx(1, abs=0.05)
    assert all(one.share == pytest.approx(1, abs=0.25) for one in found)
    times = [(one.sigma, one.cond_sigma) for one in found]
    assert times == [*pairwise(made().sigmas[:-1].tolist())]


def test_a_field_that_does_not_listen_relies_on_none():
    assert [one.change for one in measured(deaf)] == [0.0] * (STEPS - 1)


def test_the_change_of_one_component_is_that_of_its_coefficient():
    """At t = 0.5 of s = 1 c = 0 and x̂0 = x, at 0.25 c = −0.8 and x̂0 = 1.4·x; x has √½."""
    one = Spectrum.of_rows(((0.0, 1.0, 1.0),))
    assert exact_change(0.5, 0.25, one) == pytest.approx(0.4 * 0.5**0.5)
