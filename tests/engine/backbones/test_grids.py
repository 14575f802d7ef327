"""Where the steps lie: against numbers worked out by hand, and under every solver."""

import itertools
import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from asyncdiff_cli.engine import FixedDeviation, InputError, attach
from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.backbones.registry import GRIDS
from asyncdiff_cli.engine.backbones.schedulers import (
    SCHEDULERS,
    check_scheduler,
    grid_name,
    make_scheduler,
)
from asyncdiff_cli.engine.sampling.loop import integrate
from tests.conftest import PROMPTS, SHARED, make_case, seeded

SD3 = {"shift": 3.0, "num_train_timesteps": 1000}
FLUX = {**SD3, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
MU = 0.8
STEPS = 5
ALMOST = 1e-5
"""Multistep solvers start a little below 1."""


def times(name: str, grid: str, family: str = "sd3", steps: int = STEPS) -> list[float]:
    """σ of each step and the last one, as a pipeline of the family sets them."""
    config = {"sd3": SD3, "flux": FLUX}[family]
    scheduler = make_scheduler(name, family, config, grid)
    if family == "flux" and name in ("dpmpp", "unipc"):  # as FluxPipeline treats them
        scheduler.set_timesteps(steps, mu=MU)
    elif family == "flux":
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=MU)
    else:
        scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.tolist()
    if name == "heun":
        assert sigmas[1:-1:2] == sigmas[2:-1:2]
        sigmas = [sigmas[0], *sigmas[1:-1:2], sigmas[-1]]
    assert sigmas[-1] == 0
    assert len(sigmas) == steps + 1
    return sigmas[:-1]


def shifted(sigma: float, shift: float = 3.0) -> float:
    return shift * sigma / (1 + (shift - 1) * sigma)


@pytest.fixture(params=SCHEDULERS)
def solver(request) -> str:
    return request.param


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_uniform_is_without_the_models_shift(solver, family):
    assert times(solver, "uniform", family) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2], abs=ALMOST)


def test_karras_is_equation_5_between_the_models_ends(solver):
    low, high = shifted(shifted(0.001)), 1.0  # diffusers shifts the last time of SD3 twice
    ramp = [k / (STEPS - 1) for k in range(STEPS)]
    expected = [(high ** (1 / 7) + r * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for r in ramp]
    assert times(solver, "karras") == pytest.approx(expected, abs=ALMOST)


def test_beta_is_its_quantiles(solver):
    low = shifted(shifted(0.001))
    quantiles = [beta.ppf(1 - k / (STEPS - 1), 0.6, 0.6) for k in range(STEPS)]
    expected = [low + q * (1 - low) for q in quantiles]
    assert times(solver, "beta") == pytest.approx(expected, abs=ALMOST)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_logsnr_steps_are_equal(solver, family):
    found = times(solver, "logsnr", family)
    log_snr = [math.log((1 - sigma) / sigma) for sigma in found]
    assert np.diff(log_snr) == pytest.approx([np.diff(log_snr).mean()] * (STEPS - 1), rel=1e-3)
    assert found[0] == pytest.approx(0.999)
    assert found[-1] == pytest.approx(times("euler", "model", family)[-1], rel=1e-5)


@pytest.mark.parametrize("grid", ["karras", "beta"])
def test_eulers_are_diffusers_own(grid):
    own = FlowMatchEulerDiscreteScheduler(shift=3.0, **{f"use_{grid}_sigmas": True})
    own.set_timesteps(STEPS)
    assert times("euler", grid) == own.sigmas[:-1].tolist()


def test_heun_takes_the_grid_of_flux():
    mine = times("heun", "model", "flux")
    dynamic = [math.exp(MU) / (math.exp(MU) + STEPS / (STEPS - k) - 1) for k in range(STEPS)]
    assert mine == pytest.approx(dynamic, rel=1e-5)
    assert mine == times("euler", "model", "flux")


def test_a_shift_that_a_solver_does_not_know_is_kept():
    """Qwen-Image stretches its grid to end at 0.02, which DPM-Solver++ has no word for."""
    config = {**FLUX, "shift_terminal": 0.02}
    found = {}
    for name in ("euler", "dpmpp", "heun"):
        scheduler = make_scheduler(name, "qwen-image", config)
        scheduler.set_timesteps(STEPS, mu=MU)
        found[name] = sorted(set(scheduler.sigmas.tolist()))
    assert found["heun"] == found["dpmpp"][:-1] + found["heun"][-1:]
    assert min(found["dpmpp"][1:]) == pytest.approx(0.02)


CASES = [
    (family, solver, grid)
    for family in ("sd3", "flux")
    for solver in SCHEDULERS
    for grid in GRIDS
    if grid != "model" or (family, solver) == ("flux", "heun")
]


@pytest.mark.parametrize(("family", "solver", "grid"), CASES)
def test_synchronous_is_the_stock_pipeline_bit_for_bit(family, solver, grid):
    case = make_case(family)
    case.pipe.scheduler = make_scheduler(solver, family, case.pipe.scheduler.config, grid)
    check_scheduler(case.pipe.scheduler, family)
    assert grid_name(case.pipe.scheduler) == case.backbone.grid == grid
    result = case.draw(FixedDeviation(0.7), 0.0)
    assert torch.equal(result.images, case.draw_stock())
    lied = case.draw(FixedDeviation(0.7))
    assert not torch.equal(lied.images, result.images)
    with attach(case.pipe, FixedDeviation(0.7)) as trace:
        images = case.pipe(PROMPTS, **{**SHARED, "generator": seeded(2), **case.stock}).images
    assert torch.equal(images, lied.images)
    assert torch.equal(trace.cond_sigmas, lied.cond_sigmas)


@settings(max_examples=60)
@given(
    solver=st.sampled_from(list(SCHEDULERS)),
    grid=st.sampled_from(GRIDS),
    steps=st.integers(1, 40),
    family=st.sampled_from(["sd3", "flux"]),
)
def test_times_fall_from_noise_to_data(solver, grid, steps, family):
    found = times(solver, grid, family, steps)
    assert 0.99 < found[0] <= 1
    assert all(before > after for before, after in itertools.pairwise(found))
    assert found[-1] > 0


@pytest.mark.parametrize("grid", GRIDS)
def test_a_straight_path_ends_in_the_data(solver, grid):
    scheduler = make_scheduler(solver, "sd3", SD3, grid)
    scheduler.set_timesteps(STEPS)
    data, noise = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    start = scheduler.sigmas[0]
    final, *_ = integrate(
        lambda *_: noise - data,
        scheduler,
        (1 - start) * data + start * noise,
        FixedDeviation(0.5),
        1.0,
        TextConditions(torch.zeros(2, 1, 1)),
    )
    assert torch.allclose(final, data, atol=1e-4)


def test_an_unknown_grid_is_named():
    with pytest.raises(InputError, match="unknown grid 'logsnir'; did you mean 'logsnr'"):
        make_scheduler("euler", "sd3", SD3, "logsnir")
