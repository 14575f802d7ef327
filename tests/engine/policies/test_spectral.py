"""The derived schedule: that it is the best there is, and that a run draws by it."""

import pytest
import torch
from scipy.optimize import minimize

from asyncdiff_cli.engine import (
    EachPolicy,
    InputError,
    ScheduledDeviation,
    SpectralDeviation,
    Synchronous,
    attach,
    policy_from_dict,
    sample,
)
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.spectra import FAINT, residual_noise, worth_steps
from asyncdiff_cli.engine.policies.spectral import optimal_deviations
from asyncdiff_cli.engine.policies.transfer import transfer
from tests.conftest import make_case
from tests.helpers.spectra import IMAGES, error, grid, told


def objective(sigmas: torch.Tensor, deviations, solver: str, weight: float) -> float:
    std = torch.cat([IMAGES.std, torch.tensor([FAINT])])
    factors = transfer(sigmas, told(sigmas, deviations), std, solver)
    return float(IMAGES.error(factors[:-1]) + weight * (factors[-1] - FAINT) ** 2)


@pytest.mark.parametrize("solver", ["euler", "dpmpp"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_no_search_finds_a_schedule_that_is_much_better(solver, weight):
    """Powell's method needs no gradient. What the jumps cost, at most 0.1 of the synchronous error
    times their mean square, is all that may be missing."""
    sigmas = grid(6, 3.0)
    deviations = torch.tensor(optimal_deviations(tuple(sigmas.tolist()), solver, weight))
    searched = minimize(
        lambda x: objective(sigmas, torch.tensor(x), solver, weight),
        deviations.numpy(),
        method="Powell",
        bounds=[(-1, 1)] * 5,
        options={"maxfev": 400},
    )
    found = objective(sigmas, deviations.double(), solver, weight)
    jumps = float(deviations.diff().square().mean())
    assert found - searched.fun <= 0.1 * jumps * objective(sigmas, 0.0, solver, weight) + 1e-6


def sd3_grid(steps: int) -> torch.Tensor:
    """SD3's own, which ends with a step from near 0."""
    scheduler = make_scheduler("euler", "sd3", {"shift": 3.0})
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.double()


@pytest.mark.parametrize("steps", [5, 10, 15])
@pytest.mark.parametrize("times", [lambda steps: grid(steps, 3.0), sd3_grid])
def test_it_is_better_than_half_a_step_everywhere(times, steps):
    sigmas = times(steps)
    deviations = optimal_deviations(tuple(sigmas.tolist()))
    assert len(deviations) == steps - 1
    assert all(-1 <= d <= 1 for d in deviations)
    assert float(error(sigmas, deviations)) < float(error(sigmas, 0.5))
    noise = residual_noise(sigmas, told(sigmas, deviations))
    assert noise < residual_noise(sigmas, told(sigmas, 0.5))


def test_ten_steps_are_worth_nineteen():
    """docs/theory.md, point 3."""
    sigmas = grid(10, 3.0)
    deviations = optimal_deviations(tuple(sigmas.tolist()))
    off = float(error(sigmas, deviations))
    assert worth_steps(off, IMAGES, lambda steps: grid(steps, 3.0)) == 19
    for given, times in ((deviations, 0.7), (0.78, 10.5)):
        assert residual_noise(sigmas, told(sigmas, given)) == pytest.approx(times, abs=0.05)


def test_the_last_deviation_is_small_and_the_middle_ones_large():
    deviations = optimal_deviations(tuple(grid(10, 3.0).tolist()))
    assert deviations[-1] < 0.3 < min(deviations[2:-1])


def test_heun_deviates_where_its_intervals_are_not_empty():
    sigmas = grid(4, 3.0)
    twice = [1.0, *sigmas[1:-1].repeat_interleave(2).tolist(), 0.0]
    deviations = optimal_deviations(tuple(twice), "heun")
    assert len(deviations) == 6
    assert deviations[1::2] == (0.0, 0.0, 0.0)
    assert any(deviations[::2])


def test_a_single_evaluation_has_nothing_to_choose(case):
    assert optimal_deviations((1.0, 0.0)) == ()
    drawn = sample(case.backbone, "a cat", SpectralDeviation(), num_inference_steps=1)
    assert drawn.deviations.shape == (1, 0)


def test_a_late_beginning_is_no_noise():
    """From t = 0.4 the data are nearly there: what one component starts with decides."""
    sigmas = (0.4, 0.3, 0.2, 0.1, 0.0)
    begun = torch.tensor(sigmas, dtype=torch.float64)
    size = (0.36 * IMAGES.std**2 + 0.16).sqrt()

    def off(deviations) -> float:
        return float(IMAGES.error(size * transfer(begun, told(begun, deviations), IMAGES.std)))

    assert off(optimal_deviations(sigmas, "euler", 0.0)) < off(0.0) / 2


@pytest.fixture(scope="module")
def case():
    return make_case("sd3")


def test_a_run_draws_by_the_schedule_of_its_grid(case):
    scheduler = case.pipe.scheduler
    scheduler.set_timesteps(len(case.draw(Synchronous(), 1.0).cond_sigmas[0]))
    schedule = ScheduledDeviation(optimal_deviations(tuple(scheduler.sigmas.tolist())))
    expected, drawn = case.draw(schedule, 0.7), case.draw(SpectralDeviation(), 0.7)
    assert torch.equal(drawn.images, expected.images)
    assert torch.equal(drawn.deviations, expected.deviations)
    assert drawn.deviations.any()
    with attach(case.pipe, SpectralDeviation(), 0.7) as trace:
        attached = case.draw_stock()
    assert torch.equal(trace.deviations, expected.deviations)
    assert torch.equal(attached, expected.images)


def test_it_shares_a_batch_with_other_policies(case):
    drawn = case.draw(EachPolicy([SpectralDeviation(), Synchronous()], [1.0, 1.0]), 1.0)
    alone = case.draw(SpectralDeviation(), 1.0)
    assert torch.equal(drawn.deviations[0], alone.deviations[0])
    assert not drawn.deviations[1].any()


def test_its_description_makes_it_again():
    policy = SpectralDeviation(0.25)
    assert policy.to_dict() == {"name": "spectral", "weight": 0.25}
    assert policy_from_dict(policy.to_dict()) == policy


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), "1", True])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(InputError, match="weight"):
        SpectralDeviation(weight)


def test_outside_of_a_run_it_says_what_to_do():
    state = StepState(0, 2, *[torch.ones(())] * 2, *[torch.ones(1)] * 5)
    with pytest.raises(AsyncDiffError, match="for_run"):
        SpectralDeviation()(state)
