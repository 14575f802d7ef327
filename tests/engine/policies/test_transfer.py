"""Transfer functions against values by hand, against the sampler itself, and published sizes."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from asyncdiff_cli.engine import FixedDeviation, InputError
from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.backbones.grids import NOT_QUITE_1
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
from asyncdiff_cli.engine.policies.spectra import Spectrum, residual_noise, worth_steps
from asyncdiff_cli.engine.policies.transfer import SOLVERS, transfer, velocity_coefficient
from asyncdiff_cli.engine.sampling.loop import integrate
from tests.helpers.spectra import IMAGES, error, grid, told

STD = torch.tensor([0.02, 0.1, 0.5, 1.0, 3.0], dtype=torch.float64)


def test_two_steps_of_euler_by_hand():
    """c(1; s) = 1, c(0.5; 1) = 0, c(0.25; 0.5) = (0.25 − 0.75/4)/(9/64 + 4/64) = 4/13."""
    sigmas = torch.tensor([1.0, 0.5, 0.0])
    assert transfer(sigmas, sigmas[:-1], torch.tensor([1.0])).tolist() == [0.5]
    early = transfer(sigmas, torch.tensor([1.0, 0.25]), torch.tensor([0.5], dtype=torch.float64))
    assert early.item() == pytest.approx(0.5 * (1 - 0.5 * 4 / 13), rel=1e-15)


def test_two_steps_of_a_multistep_solver_by_hand():
    """From x = 1 at t = 1, where x̂0 = 0, the first step leads to x = 0.8. There c(0.8; 1) is
    0.6/0.68, and the last step goes to x̂0 = (1 − 0.8·c)·0.8. UniC changes x after that alone."""
    sigmas = torch.tensor([1.0, 0.8, 0.0], dtype=torch.float64)
    for solver in ("dpmpp", "unipc"):
        got = transfer(sigmas, sigmas[:-1], torch.tensor([1.0], dtype=torch.float64), solver)
        assert got.item() == pytest.approx((1 - 0.8 * 0.6 / 0.68) * 0.8, rel=1e-14)


def test_two_steps_of_heun_by_hand():
    """Slopes at t = 1 and 0.5 are x and c(0.5; 2)·x/2 = −1.2·x/2, of mean 0.2·x; the last step is
    Euler's: (1 − 0.5·0.2)·(1 + 0.5·1.2)."""
    sigmas = torch.tensor([1.0, 0.5, 0.0])
    got = transfer(sigmas, sigmas[:-1], torch.tensor([2.0], dtype=torch.float64), "heun")
    assert got.item() == pytest.approx(1.44, rel=1e-14)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("spacing", ["model", "uniform", "karras", "beta", "logsnr"])
@pytest.mark.parametrize("deviation", [-0.5, 0.0, 0.5, 1.0])
def test_it_is_what_the_sampler_makes_of_the_gaussian_field(solver, spacing, deviation):
    """In fp64, but for the grid and what the solvers compute of it, which are fp32."""
    scheduler = make_scheduler(solver, "sd3", {"shift": 3.0}, spacing)
    scheduler.set_timesteps(7)

    def velocity(latents, timestep, sigma, cond_sigma):
        return velocity_coefficient(cond_sigma.double()[:, None], STD) * latents

    start = torch.ones(1, len(STD), dtype=torch.float64)
    text = TextConditions(torch.zeros(1, 1, 1))
    policy = FixedDeviation(deviation)
    drawn, cond_sigmas, _ = integrate(velocity, scheduler, start, policy, 1.0, text)
    sigmas, times = scheduler.sigmas, torch.cat(cond_sigmas)
    if solver == "heun":
        sigmas = torch.cat([sigmas[:1], sigmas[1::2]])
    factors = transfer(sigmas, times, STD, solver)
    assert factors.numpy() == pytest.approx(drawn[0].numpy(), rel=1e-5, abs=1e-5)
    if solver == "heun":  # its other evaluations are told the grid's times
        times = torch.cat([times[:1], times[1::2]])
        short = transfer(sigmas, times, STD, solver)
        assert short.numpy() == pytest.approx(drawn[0].numpy(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpmpp", 2)])
def test_a_solver_converges_to_the_data_in_its_order(solver, order):
    """On a grid of even log-SNR between 0.99 and 0.01, whose ends take no part in the order."""

    def off(steps: int) -> float:
        log_snr = torch.linspace(math.log(1 / 99), math.log(99), steps, dtype=torch.float64)
        sigmas = torch.cat([1 / (1 + log_snr.exp()), torch.zeros(1)])
        std = torch.tensor([0.3], dtype=torch.float64)
        return float(transfer(sigmas, sigmas[:-1], std, solver))

    first, second, third = off(50), off(100), off(200)
    assert math.log2((first - second) / (second - third)) == pytest.approx(order, abs=0.2)


def test_velocity_scales_multiply_the_velocity():
    sigmas, scale = grid(4, 3.0), torch.tensor([1.0, 0.9, 0.5, 1.2])
    expected = torch.ones_like(STD)
    for k in range(4):
        c = velocity_coefficient(sigmas[k], STD)
        expected = expected * (1 + (sigmas[k + 1] - sigmas[k]) * scale[k].double() * c)
    got = transfer(sigmas, sigmas[:-1], STD, velocity_scale=scale)
    assert torch.allclose(got, expected, rtol=1e-12)


def test_factors_are_in_the_dtype_of_the_sizes():
    sigmas = grid(3, 1.0).float()
    assert transfer(sigmas, sigmas[:-1], STD.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("sigmas", "cond_sigmas", "solver", "message"),
    [
        ([1, 0.5, 0], [1, 0.5], "rk4", "unknown solver 'rk4'"),
        ([1, 0.5, 0.1], [1, 0.5], "euler", "sigmas must fall from at most 1 to 0"),
        ([1, 1, 0], [1, 0.5], "euler", "sigmas must fall from at most 1 to 0"),
        ([2, 1, 0], [1, 0.5], "euler", "sigmas must fall from at most 1 to 0"),
        ([[1, 0]], [1], "euler", "sigmas must fall from at most 1 to 0"),
        ([1, 0.5, 0], [1], "euler", "2 steps of euler need 2 cond_sigmas"),
        ([1, 0.5, 0], [1, 0.5, 0.5], "dpmpp", "2 steps of dpmpp need 2 cond_sigmas"),
        ([1, 0.5, 0], [1], "heun", "2 steps of heun need 3 cond_sigmas"),
        ([1, 0.5, 0], [1, 0], "euler", r"cond_sigmas must be in \(0, 1\]"),
        ([1, 0.5, 0], [1, math.nan], "euler", r"cond_sigmas must be in \(0, 1\]"),
    ],
)
def test_times_that_are_none_are_refused(sigmas, cond_sigmas, solver, message):
    with pytest.raises(InputError, match=message):
        transfer(torch.tensor(sigmas), torch.tensor(cond_sigmas), STD, solver)


TABLE = {
    # K, shift: Euler, best constant D, its error, worth, best D per step, 2M, its best D and error
    (5, 3): (0.0989, 0.96, 0.0322, 10, 0.0296, 0.0625, 0.73, 0.0230),
    (10, 3): (0.0282, 0.78, 0.0091, 19, 0.0063, 0.0066, 0.30, 0.0029),
    (15, 3): (0.0132, 0.72, 0.0044, 27, 0.0025, 0.0011, 0.13, 0.0007),
    (10, 1): (0.0294, 0.55, 0.0199, 13, 0.0148, 0.0110, 0.02, 0.0110),
}
"""What docs/theory.md says a deviation is worth."""


@pytest.mark.parametrize(("steps", "shift"), TABLE)
def test_what_a_deviation_is_worth(steps, shift):
    euler, best, lowest, worth, per_step, second, second_best, second_lowest = TABLE[steps, shift]
    sigmas = grid(steps, shift)
    near = {"abs": 5e-5}  # the table's last digit
    assert float(error(sigmas, 0.0)) == pytest.approx(euler, **near)
    assert float(error(sigmas, best)) == pytest.approx(lowest, **near)
    assert float(error(sigmas, 0.0, "dpmpp")) == pytest.approx(second, **near)
    assert float(error(sigmas, second_best, "dpmpp")) == pytest.approx(second_lowest, **near)
    for solver, found in (("euler", best), ("dpmpp", second_best)):
        around = [float(error(sigmas, found + d, solver)) for d in (-0.01, 0.0, 0.01)]
        assert min(around) == around[1]
    count = worth_steps(float(error(sigmas, best)), IMAGES, lambda k: grid(k, shift))
    assert count == worth

    def objective(deviations):
        at = torch.tensor(deviations, requires_grad=True)
        value = error(sigmas, at)
        value.backward()
        return value.item(), at.grad.numpy()

    start, bounds = np.full(steps - 1, best), [(-1, 1)] * (steps - 1)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds)
    assert found.fun == pytest.approx(per_step, **near)


@pytest.mark.parametrize(
    ("steps", "shift", "deviation", "moved"),
    [(5, 3, 0.0, 0.0615), (5, 3, 0.73, 0.0216), (10, 1, 0.0, 0.0102)],
)
def test_where_diffusers_starts_its_multistep_solvers(steps, shift, deviation, moved):
    """What docs/theory.md says below the table."""
    sigmas = grid(steps, shift)
    sigmas[0] = NOT_QUITE_1
    assert float(error(sigmas, deviation, "dpmpp")) == pytest.approx(moved, abs=5e-5)


def test_euler_loses_fine_detail_first():
    sigmas, std = grid(10, 3.0), torch.tensor([1, 0.5, 0.2, 0.1])
    kept = transfer(sigmas, sigmas[:-1], std) / std
    assert kept.tolist() == pytest.approx([0.83, 0.74, 0.49, 0.28], abs=0.005)


def test_a_constant_deviation_leaves_noise():
    sigmas = grid(10, 3.0)
    assert residual_noise(sigmas, told(sigmas, 0.5)) == pytest.approx(5.5, abs=0.05)
    assert residual_noise(sigmas, told(sigmas, 0.0)) < 1


@pytest.mark.parametrize(
    ("deviation", "shares"),
    [
        (0.0, [0.88, 0.89, 0.95, 0.98, 1.00]),
        (0.5, [0.96, 0.93, 0.85, 0.83, 0.82]),
        (1.0, [1.05, 0.99, 0.76, 0.65, 0.60]),
    ],
)
def test_latents_of_euler_look_noisier_than_their_time(deviation, shares):
    """Before the last step, the image in them is too weak: docs/theory.md, "the other way"."""
    sigmas = grid(10, 3.0)
    std = torch.tensor([1, 0.5, 0.2, 0.1, 0.02], dtype=torch.float64)
    coefficients = velocity_coefficient(told(sigmas, deviation)[:9, None], std)
    latent = (1 + sigmas[:10].diff()[:, None] * coefficients).prod(0)
    time = sigmas[9]
    ought = ((1 - time).square() * std.square() + time.square()).sqrt()
    assert (latent / ought).numpy() == pytest.approx(shares, abs=0.006)


def test_the_spectrum_of_images_falls_with_frequency():
    assert float(IMAGES.weight.sum()) == pytest.approx(1)
    assert float((IMAGES.weight * IMAGES.std.square()).sum()) == pytest.approx(1)
    assert float(IMAGES.std[0] / IMAGES.std[1]) == pytest.approx(math.sqrt(2))
    assert IMAGES.frequency[0] == 0
    assert float(IMAGES.frequency[-1]) == pytest.approx(16 * math.sqrt(2))


def test_the_spectrum_of_latents_is_measured_in_units_of_the_noise():
    noise = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    white = Spectrum.of_latents(0.5 * noise)
    assert white.std.numpy() == pytest.approx(0.5, abs=0.06)
    assert float((white.weight * white.std.square()).sum()) == pytest.approx(
        float((0.5 * noise).square().mean()), rel=1e-5
    )
    wave = torch.cos(2 * math.pi * 3 * torch.arange(16).double() / 16).expand(1, 1, 16, 16)
    at = Spectrum.of_latents(wave)
    assert at.frequency[at.std.argmax()] == 3
    assert float(at.std[at.frequency != 3].max()) < 1e-12


@pytest.mark.parametrize("latents", [torch.zeros(4, 4), torch.full((1, 1, 2, 2), math.nan)])
def test_latents_without_a_spectrum_are_refused(latents):
    with pytest.raises(InputError, match="finite latents"):
        Spectrum.of_latents(latents)


def test_what_no_number_of_steps_reaches_is_worth_none():
    assert worth_steps(0.0, IMAGES, lambda k: grid(k, 3.0), most=4) is None
