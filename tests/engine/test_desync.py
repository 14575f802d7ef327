import torch
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine import desync

times = st.floats(0, 1, width=32)
deviations = st.floats(-1, 1, width=32)
gammas = st.floats(-4, 4, width=32)


def next_time(sigma: float, sigma_next: float, deviation: float, gamma: float) -> torch.Tensor:
    eta = desync.eta(torch.tensor([deviation]), gamma)
    sigma, sigma_next = torch.tensor(sigma), torch.tensor(sigma_next)
    cond_sigma = desync.next_cond_sigma(sigma, sigma_next, eta)
    return desync.bounded(cond_sigma, sigma_next, torch.tensor(1.0))


@given(times, times, deviations)
def test_no_deviation_is_the_grid_to_the_bit(sigma, sigma_next, deviation):
    assert next_time(sigma, sigma_next, deviation, gamma=0.0).item() == sigma_next
    assert next_time(sigma, sigma_next, 0.0, gamma=2.0).item() == sigma_next


@given(times, times, deviations, gammas)
def test_stays_between_sigma_min_and_the_start(sigma, sigma_next, deviation, gamma):
    cond_sigma = next_time(sigma, sigma_next, deviation, gamma).item()
    assert min(torch.tensor(desync.SIGMA_MIN).item(), sigma_next) <= cond_sigma <= 1


@given(times, times, deviations, deviations)
def test_a_larger_deviation_is_never_noisier(sigma, sigma_next, one, other):
    if sigma_next > sigma:
        sigma, sigma_next = sigma_next, sigma
    if sigma_next < desync.SIGMA_MIN:
        return  # synchronous times are not clamped
    low, high = sorted((one, other))
    cleaner = next_time(sigma, sigma_next, high, gamma=1.5)
    assert cleaner.item() <= next_time(sigma, sigma_next, low, gamma=1.5).item() + 1e-6


def test_known_times():
    # half of the interval further, one whole interval further, back to where it came from
    assert torch.isclose(next_time(0.8, 0.6, 0.5, 1.0), torch.tensor(0.5))
    assert torch.isclose(next_time(0.8, 0.6, 0.5, 2.0), torch.tensor(0.4))
    assert torch.isclose(next_time(0.8, 0.6, -1.0, 1.0), torch.tensor(0.8))
    assert torch.isclose(next_time(0.1, 0.05, 1.0, 1.5), torch.tensor(desync.SIGMA_MIN))
    assert torch.isclose(next_time(1.0, 0.9, -1.0, 3.0), torch.tensor(1.0))


@given(st.floats(0, 1, width=32), st.sampled_from([0.5, 1.0]))
def test_a_ratio_spans_the_bound(ratio, bound):
    """Eq. 11 and 13: −bound at 0, 0 at one half, bound at 1, a line between."""
    deviation = desync.deviation_from_ratio(torch.tensor(ratio), bound)
    assert abs(deviation) <= bound
    assert torch.isclose(deviation, torch.tensor(bound * (2 * ratio - 1)), atol=1e-6)
    assert torch.isclose(
        desync.ratio_from_deviation(deviation, bound), torch.tensor(ratio), atol=1e-6
    )


@given(st.floats(0, 1, width=32))
def test_a_ratio_spans_the_velocity_scale(ratio):
    """Eq. 20: 0.5 at 0, 1.5 at 1, and back."""
    scale = desync.scale_from_ratio(torch.tensor(ratio))
    assert torch.isclose(scale, torch.tensor(0.5 + ratio))
    assert torch.isclose(desync.ratio_from_scale(scale), torch.tensor(ratio), atol=1e-6)


def test_eq_6_is_eq_10_at_gamma_one_and_bound_one_half():
    """t* = t + (0.5 + r)·Δt, the form in which Eq. 6 is printed."""
    ratio = torch.linspace(0, 1, 11)
    eta = desync.eta(desync.deviation_from_ratio(ratio, bound=0.5), gamma=1.0)
    assert torch.allclose(eta, 0.5 + ratio)


def test_both_guidance_halves_see_the_same_times():
    grid = torch.full((4,), 500.0)
    timesteps = desync.model_timestep(grid, torch.tensor(0.5), torch.tensor([0.5, 0.25]))
    assert timesteps.tolist() == [500.0, 250.0, 500.0, 250.0]


def test_a_synchronous_image_keeps_the_rounded_timestep():
    grid = torch.full((2,), 751, dtype=torch.int64)
    timesteps = desync.model_timestep(grid, torch.tensor(0.7516), torch.tensor([0.7516, 0.7]))
    assert torch.equal(timesteps, torch.tensor([751.0, 700.0]))
