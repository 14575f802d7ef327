"""The loop on velocity fields whose answers are known in closed form."""

import pytest
import torch

from asyncdiff_cli.engine import AsyncDiffError, FixedDeviation, InputError, Synchronous
from asyncdiff_cli.engine.backbones.schedulers import SCHEDULERS
from asyncdiff_cli.engine.sampling.loop import integrate
from tests.helpers.integration import STEPS, TEXT, Answers, scheduler_on_a_grid


def run(velocity, scheduler, latents, policy=None, gamma=1.0):
    return integrate(velocity, scheduler, latents, policy or Synchronous(), gamma, TEXT)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("deviation", [-1.0, 0.0, 0.5, 1.0])
def test_straight_paths_end_in_the_data_whatever_the_conditioning(name, deviation):
    scheduler = scheduler_on_a_grid(name)
    data, noise = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    start = scheduler.sigmas[0]
    latents = (1 - start) * data + start * noise
    final, _, _ = run(lambda *_: noise - data, scheduler, latents, FixedDeviation(deviation))
    assert torch.allclose(final, data, atol=1e-4)


@pytest.mark.parametrize("deviations", [(0.0, 0.0), (0.5, -0.5), (1.0, 0.25)])
def test_a_field_that_is_its_conditioning_time_sums_the_times(deviations):
    """v = t* makes Euler's answer x_0 + Σ (t_{k+1} − t_k)·t*_k, for each image by itself."""
    scheduler = scheduler_on_a_grid("euler")
    sigmas, gamma = scheduler.sigmas, 1.5
    expected = []
    for deviation in deviations:
        times = [sigmas[0]]
        for k in range(STEPS - 1):
            eta = 1 + gamma * deviation
            times.append((sigmas[k] + eta * (sigmas[k + 1] - sigmas[k])).clamp(1e-3, sigmas[0]))
        expected.append(float((sigmas.diff() * torch.stack(times)).sum()))

    def velocity(latents, timestep, sigma, cond_sigma):
        return cond_sigma[:, None].expand_as(latents)

    final, cond_sigmas, drawn = run(
        velocity, scheduler, torch.zeros(2, 3), FixedDeviation(deviations), gamma
    )
    assert torch.allclose(final, torch.tensor(expected)[:, None].expand(2, 3), atol=1e-6)
    assert len(cond_sigmas) == STEPS
    assert torch.equal(torch.stack(drawn), torch.tensor([deviations] * (STEPS - 1)))


def test_heun_is_exact_where_the_field_is_linear_in_time():
    scheduler = scheduler_on_a_grid("heun")
    final, cond_sigmas, drawn = run(
        lambda x, t, sigma, cond: cond[:, None].expand_as(x), scheduler, torch.zeros(2, 3)
    )
    first, last = scheduler.sigmas[0], scheduler.sigmas[-2]  # the last step is one of Euler
    assert torch.allclose(final, -((first**2 - last**2) / 2 + last**2).expand(2, 3), atol=1e-6)
    assert len(cond_sigmas) == 2 * STEPS - 1
    assert len(drawn) == 2 * STEPS - 2


def test_heun_deviates_only_over_intervals_that_are_not_empty():
    scheduler = scheduler_on_a_grid("heun")
    _, cond_sigmas, _ = run(
        lambda x, *_: torch.zeros_like(x), scheduler, torch.zeros(2, 3), FixedDeviation(0.5)
    )
    deviates = [bool((c != s).all()) for c, s in zip(cond_sigmas, scheduler.sigmas, strict=False)]
    assert deviates == [False] + [True, False] * (STEPS - 1)


def test_a_grid_that_ends_above_zero_is_finished_by_a_step_of_euler():
    scheduler = scheduler_on_a_grid("dpmpp", final_sigmas_type="sigma_min")
    data, noise = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0))
    start = scheduler.sigmas[0]
    final, cond_sigmas, drawn = run(
        lambda *_: noise - data, scheduler, (1 - start) * data + start * noise, FixedDeviation(0.3)
    )
    assert torch.allclose(final, data, atol=1e-4)
    assert (len(cond_sigmas), len(drawn)) == (STEPS + 1, STEPS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_latent_stops_the_run_and_names_the_step(bad):
    evaluations = []

    def velocity(latents, *_):
        evaluations.append(1)
        return torch.full_like(latents, bad if len(evaluations) == 3 else 0.0)

    with pytest.raises(AsyncDiffError, match=r"step 3 of 6"):
        run(velocity, scheduler_on_a_grid("euler"), torch.zeros(2, 3))
    assert len(evaluations) == 3


@pytest.mark.parametrize("answer", [1.5, float("nan"), [0.0, -1.1]])
def test_a_policy_that_leaves_its_bound_stops_the_run(answer):
    with pytest.raises(AsyncDiffError, match=r"after step 1 of 6 is outside \[-1, 1\]"):
        run(lambda x, *_: x, scheduler_on_a_grid("euler"), torch.zeros(2, 3), Answers(answer))


def test_deviations_for_another_number_of_images_are_refused():
    with pytest.raises(InputError, match="3 deviations for 2 images"):
        run(
            lambda x, *_: x,
            scheduler_on_a_grid("euler"),
            torch.zeros(2, 3),
            FixedDeviation([0.1, 0.2, 0.3]),
        )
