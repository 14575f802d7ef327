"""The policies beside the paper's: their equations, and what they do in both samplers."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from asyncdiff_cli.engine import (
    Combined,
    DetailDaemon,
    EpsilonScaling,
    FixedDeviation,
    InputError,
    ModelDetailBoost,
    NoiseShift,
    SamplerDetailBoost,
    ScaledSchedule,
    ScheduledDeviation,
    StepState,
    Synchronous,
    TimeShift,
    VelocityScale,
    attach,
    desync,
)
from asyncdiff_cli.engine.policies.asking import ask, scaled
from asyncdiff_cli.engine.policies.time_shift import matching_time
from asyncdiff_cli.engine.sampling.loop import integrate
from tests.conftest import make_case
from tests.helpers.integration import STEPS, TEXT, scheduler_on_a_grid
from tests.helpers.solvers import with_scheduler

RIVALS = [
    DetailDaemon(),
    VelocityScale(0.8),
    Combined(0.5, 0.9),
    ScaledSchedule([0.5, -0.2, 0.1], [0.9, 1.1, 0.8]),
    TimeShift(),
    EpsilonScaling(1.1),
    NoiseShift(1.5),
    ModelDetailBoost(start_step=0),
    SamplerDetailBoost(start_step=0),
]
PLATEAU = {"start": 0.0, "end": 1.0, "exponent": 0.0}
"""Detail Daemon's largest a at every evaluation."""


def shares(*middle):
    """a of 11 evaluations, in units of the amount, from the third to the ninth."""
    return [0, 0, *middle, 0, 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"smooth": False}, shares(0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0)),
        ({}, shares(0, 1 / 4, 3 / 4, 1, 3 / 4, 1 / 4, 0)),
        ({"exponent": 2}, shares(0, 1 / 16, 9 / 16, 1, 9 / 16, 1 / 16, 0)),
        (
            {"bias": 0, "smooth": False},
            shares(1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0),
        ),
        (
            {"bias": 1, "smooth": False},
            shares(0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1),
        ),
        ({"start": 0.5, "end": 0.5}, shares(0, 0, 0, 1, 0, 0, 0)),
        (PLATEAU, [1] * 11),
        (
            {"start_offset": 0.2, "end_offset": -0.4, "smooth": False},
            [1 / 2, 1 / 2, 1 / 2, 4 / 6, 5 / 6, 1, 1 / 3, -1 / 3, -1, -1, -1],
        ),
        (
            {"bias": 0, "start_offset": 0.2, "smooth": False, "fade": 0.5},
            [1 / 4, 1 / 4, 1 / 2, 5 / 12, 4 / 12, 3 / 12, 2 / 12, 1 / 12, 0, 0, 0],
        ),
        ({"fade": 1, "start_offset": 0.2}, [0] * 11),
    ],
)
def test_detail_daemons_schedule(settings, expected):
    amounts = DetailDaemon(amount=0.4, **settings).schedule(11)
    assert amounts == pytest.approx([0.4 * share for share in expected], abs=1e-12)


@given(
    st.integers(1, 60),
    st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted),
    st.floats(0, 1),
    st.floats(0, 10),
    st.floats(-1, 1),
    st.booleans(),
)
def test_any_schedule_is_between_0_and_its_amount(steps, ends, bias, exponent, amount, smooth):
    amounts = DetailDaemon(amount, *ends, bias, exponent, smooth).schedule(steps)
    assert len(amounts) == steps
    assert all(0 <= a * math.copysign(1, amount) <= abs(amount) for a in amounts)


def record(policy, scheduler, gamma=1.0, velocity=None):
    """What each evaluation was told and by what its velocity was multiplied, for two images."""
    raw, states = [], []

    def recorded(x, timestep, sigma, cond_sigma):
        raw.append(torch.ones_like(x) if velocity is None else velocity(x, cond_sigma))
        return raw[-1]

    latents = torch.tensor([[0.7, -0.4, 1.3], [0.2, -1.1, 0.5]])
    final, told, drawn = integrate(recorded, scheduler, latents, policy, gamma, TEXT, states.append)
    factors = [(s.velocity / v)[:, 0] for s, v in zip(states, raw, strict=True)]
    return final, torch.stack(told), torch.stack(factors), torch.stack(drawn)


@pytest.mark.parametrize("gamma", [1.0, 2.0, -1.0])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp", "unipc"])
def test_detail_daemon_tells_its_time_and_scales_by_it(name, gamma):
    scheduler = scheduler_on_a_grid(name)
    policy = DetailDaemon(0.2)
    _, told, factors, drawn = record(policy, scheduler, gamma)
    sigmas, amounts = scheduler.sigmas[: len(told)], policy.schedule(len(told))
    assert max(amounts) == 0.2
    for k, a in enumerate(amounts):
        time = min(float(sigmas[k]) * (1 - gamma * a), float(sigmas[0]))
        assert told[k].tolist() == pytest.approx([time] * 2, rel=1e-6)
        assert factors[k].tolist() == pytest.approx([time / float(sigmas[k])] * 2, rel=1e-6)
        if a == 0:
            assert torch.equal(told[k], sigmas[k].expand(2))
            assert torch.equal(factors[k], torch.ones(2))
    for k, a in enumerate(amounts[1:]):
        interval = float(sigmas[k] - sigmas[k + 1])
        expected = a * float(sigmas[k + 1]) / interval if interval else 0
        assert drawn[k].tolist() == pytest.approx([expected] * 2, rel=1e-4)


def test_its_first_evaluation_is_at_the_start_whatever_it_says():
    policy = DetailDaemon(0.2, **PLATEAU)
    assert policy.schedule(STEPS)[0] == 0.2
    scheduler = scheduler_on_a_grid("euler")
    _, told, factors, _ = record(policy, scheduler)
    assert torch.equal(told[0], scheduler.sigmas[0].expand(2))
    assert torch.equal(factors[0], torch.ones(2))
    assert torch.allclose(factors[1:], torch.tensor(0.8))


@pytest.mark.parametrize(("amount", "gamma"), [(-1, 1), (1, 1), (0.5, 100), (0.5, -100)])
def test_its_times_keep_within_the_run(amount, gamma):
    scheduler = scheduler_on_a_grid("euler")
    _, told, factors, _ = record(DetailDaemon(amount, **PLATEAU), scheduler, gamma)
    sigmas = scheduler.sigmas[:STEPS]
    meant = (sigmas[1:] * (1 - gamma * amount)).clamp(desync.SIGMA_MIN, sigmas[0])
    assert torch.allclose(told[1:], meant[:, None])
    assert torch.allclose(factors, told / sigmas[:, None])


def field(x, time):
    """Neither straight nor linear, in x and in t."""
    return torch.sin(2 * x) * (0.5 + time.reshape(-1, 1)) - 0.3 * x**2


@pytest.mark.parametrize("policy", [DetailDaemon(0.3), DetailDaemon(0.3, end_offset=0.2, fade=0.3)])
def test_detail_daemon_equals_its_sampler_wrapper_written_out(policy):
    """The wrapper changes the σ that makes the clean image; Euler divides by its own."""
    scheduler, gamma = scheduler_on_a_grid("euler"), 1.5
    final, *_ = record(policy, scheduler, gamma, field)
    sigmas, amounts = scheduler.sigmas, policy.schedule(STEPS)
    x = torch.tensor([[0.7, -0.4, 1.3], [0.2, -1.1, 0.5]])
    for k in range(STEPS):
        told = sigmas[k] * (1 - gamma * amounts[k])
        clean = x - told * field(x, told)
        x = x + (sigmas[k + 1] - sigmas[k]) * (x - clean) / sigmas[k]
    assert torch.allclose(final, x, atol=1e-6)


def test_so_it_does_under_heun():
    scheduler, policy = scheduler_on_a_grid("heun"), DetailDaemon(0.3)
    final, *_ = record(policy, scheduler, 1.0, field)
    sigmas = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1:-1:2], scheduler.sigmas[-1:]])
    amounts = iter(policy.schedule(2 * STEPS - 1))

    def direction(x, sigma):
        told = sigma * (1 - next(amounts))
        clean = x - told * field(x, told)
        return (x - clean) / sigma

    x = torch.tensor([[0.7, -0.4, 1.3], [0.2, -1.1, 0.5]])
    for k in range(STEPS):
        interval = sigmas[k + 1] - sigmas[k]
        slope = direction(x, sigmas[k])
        if k + 1 < STEPS:
            slope = (slope + direction(x + interval * slope, sigmas[k + 1])) / 2
        x = x + interval * slope
    assert next(amounts, None) is None
    assert torch.allclose(final, x, atol=1e-6)


def test_its_clean_image_is_that_of_the_time_it_tells():
    states, raw = [], []

    def velocity(x, timestep, sigma, cond_sigma):
        raw.append(field(x, cond_sigma))
        return raw[-1]

    latents = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    scheduler = scheduler_on_a_grid("dpmpp")
    integrate(velocity, scheduler, latents, DetailDaemon(0.3), 1.0, TEXT, states.append)
    for state, v in zip(states, raw, strict=True):
        expected = state.latents - state.cond_sigma[:, None] * v
        assert torch.allclose(state.clean, expected, atol=1e-6)


@pytest.mark.parametrize(("scale", "gamma"), [(0.9, 1.0), (1.2, 0.5), (0.5, 2.0), (0.7, 0.0)])
def test_velocity_scale_makes_every_step_so_much_longer(scale, gamma):
    """On a constant field Euler's way is the factor times the whole grid."""
    scheduler, factor = scheduler_on_a_grid("euler"), 1 + gamma * (scale - 1)
    final, told, factors, drawn = record(VelocityScale(scale), scheduler, gamma)
    start = torch.tensor([[0.7, -0.4, 1.3], [0.2, -1.1, 0.5]])
    assert torch.allclose(final, start - factor * scheduler.sigmas[0], atol=1e-6)
    assert torch.allclose(factors, torch.tensor(factor))
    assert torch.equal(told, scheduler.sigmas[:STEPS, None].expand(-1, 2))
    assert (drawn == 0).all()


def test_combined_is_both():
    scheduler = scheduler_on_a_grid("euler")
    _, told, factors, drawn = record(Combined(0.5, 0.9), scheduler, 1.5)
    _, fixed, _, deviations = record(FixedDeviation(0.5), scheduler_on_a_grid("euler"), 1.5)
    assert torch.equal(told, fixed)
    assert torch.equal(drawn, deviations)
    assert torch.allclose(factors, torch.tensor(0.85))


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.0])
def test_a_scaled_schedule_shortens_each_step_but_the_first(gamma):
    """On a constant field Euler's way is the sum of the steps, each times its own factor."""
    scheduler = scheduler_on_a_grid("euler")
    deviations, scales = [0.5, -0.2, 0.1, 1.0, 0.0], [0.9, 1.1, 0.8, 1.2, 1.0]
    policy = ScaledSchedule(deviations, scales)
    final, told, factors, drawn = record(policy, scheduler, gamma)
    _, alone, _, same = record(ScheduledDeviation(deviations), scheduler_on_a_grid("euler"), gamma)
    assert torch.equal(told, alone)
    assert torch.equal(drawn, same)
    by_hand = torch.tensor([1.0, *(1 + gamma * (scale - 1) for scale in scales)])
    assert torch.allclose(factors, by_hand[:, None].expand_as(factors))
    start = torch.tensor([[0.7, -0.4, 1.3], [0.2, -1.1, 0.5]])
    way = (by_hand * scheduler.sigmas.diff()).sum()
    assert torch.allclose(final, start + way, atol=1e-6)


def test_a_scaled_schedule_is_resampled_as_a_schedule_is():
    policy = ScaledSchedule([0.0, 1.0], [0.8, 1.0])
    _, _, factors, drawn = record(policy, scheduler_on_a_grid("euler"), 1.0)
    assert torch.allclose(drawn[:, 0], torch.linspace(0, 1, STEPS - 1))
    by_hand = torch.cat([torch.ones(1), torch.linspace(0.8, 1, STEPS - 1)])
    assert torch.allclose(factors[:, 0], by_hand)


class Factors(Synchronous):
    """Multiplies each image's velocity by its own number."""

    def __init__(self, *factors):
        object.__setattr__(self, "factors", torch.tensor(factors))

    def velocity_scale(self, sigma, cond_sigma, gamma):
        return self.factors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_factor_of_1_changes_no_bit(dtype):
    velocity = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    now, told = torch.tensor(0.5), torch.tensor([0.5, 0.5])
    found = scaled(Factors(1.0, 0.9), 1.0, velocity, velocity, now, told)
    assert found.dtype == dtype
    assert torch.equal(found[0], velocity[0])
    assert torch.allclose(found[1], (0.9 * velocity[1].double()).to(dtype), rtol=1e-2)
    assert scaled(Synchronous(), 1.0, velocity, velocity, now, told) is velocity


def state_with(noise_levels, clean_level, sigma, sigma_next):
    """Images whose estimates of clean image and noise are uncorrelated and of these levels."""
    clean = clean_level * torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(len(noise_levels), 4)
    noise = torch.tensor(noise_levels)[:, None] * torch.tensor([1.0, 1.0, -1.0, -1.0])
    now = torch.tensor(sigma)
    return StepState(
        index=2,
        num_evaluations=8,
        sigma=now,
        sigma_next=torch.tensor(sigma_next),
        cond_sigma=now.expand(len(noise_levels)),
        latents=(1 - now) * clean + now * noise,
        velocity=noise - clean,
        prompt_embeds=torch.zeros(len(noise_levels), 1, 1),
        pooled_prompt_embeds=torch.zeros(len(noise_levels), 1),
    )


def test_time_shift_looks_noisier_where_the_latent_is():
    """Without a clean image the variance is t², so t* is t_{k+1} times the noise's level."""
    state = state_with([1.0, 13 / 12, 7 / 6, 11 / 12, 9.0, 0.1], 0.0, sigma=0.8, sigma_next=0.6)
    found = TimeShift(window=0.5)(state)
    assert found[0] == 0
    assert found.tolist() == pytest.approx([0, -0.25, -0.5, 0.25, -0.5, 0.5], abs=1e-5)


def test_time_shift_counts_the_clean_images_variance():
    """0.2² + 0.8² = 0.25² + 0.75²·(0.6175/0.5625): the latent at 0.75 is as noisy as at 0.8."""
    state = state_with([1.0, (0.6175 / 0.5625) ** 0.5], 1.0, sigma=0.9, sigma_next=0.75)
    assert TimeShift(window=1)(state).tolist() == pytest.approx([0, -1 / 3], abs=1e-5)
    state = state_with([1.0], 3.0, sigma=0.3, sigma_next=0.2)
    assert TimeShift()(state).tolist() == [0]


def test_time_shift_is_synchronous_over_an_empty_interval():
    assert TimeShift()(state_with([3.0], 0.5, sigma=0.4, sigma_next=0.4)).tolist() == [0]


def test_time_shift_is_an_images_own():
    state = state_with([0.7, 1.01, 1.3], 0.4, sigma=0.8, sigma_next=0.7)
    together = TimeShift()(state)
    for i in range(3):
        alone = TimeShift()(state.select(slice(i, i + 1)))
        assert alone.item() == pytest.approx(together[i].item(), abs=1e-5)


@given(
    st.floats(0, 1),
    st.lists(st.floats(0, 50), min_size=3, max_size=3),
    st.floats(0, 30),
    st.lists(st.floats(2**-10, 1, width=32), min_size=2, max_size=2),
)
def test_time_shift_keeps_its_window(window, noises, clean, sigmas):
    state = state_with(noises, clean, max(sigmas), min(sigmas))
    assert ask(TimeShift(window), state).isfinite().all()


@given(st.floats(0, 20), st.floats(0, 20), st.floats(0.05, 0.95), st.floats(0, 1))
@example(
    0.0, 8.875, 0.8984375, 1.0
)  # of the grid the synchronous time is best, beside a better one
def test_no_time_of_the_window_fits_better(measured, clean, synchronous, reach):
    ends = synchronous - reach, synchronous + reach
    measured, clean, synchronous, low, high = (
        torch.tensor(value, dtype=torch.float64) for value in (measured, clean, synchronous, *ends)
    )
    time = matching_time(measured[None], clean[None], synchronous, (low, high))

    def misfit(time):
        return ((1 - time) ** 2 * clean + time**2 - measured).abs()

    grid = torch.linspace(*ends, 2001, dtype=torch.float64)
    assert low <= time <= high
    assert misfit(time) <= misfit(grid).min() + 1e-6 * measured + 1e-12
    if misfit(synchronous) <= misfit(time):
        assert time == synchronous


def test_of_two_times_that_fit_the_nearer_one_is_chosen():
    """Var(x0) = 1: the variance at 0.3 is that at 0.7."""
    measured, clean = torch.tensor([0.58] * 2).double(), torch.ones(2).double()
    for synchronous, expected in ((0.4, 0.3), (0.6, 0.7)):
        now = torch.tensor(synchronous).double()
        time = matching_time(measured, clean, now, (now - 0.35, now + 0.35))
        assert time.tolist() == pytest.approx([expected] * 2)


@pytest.mark.parametrize("policy", RIVALS)
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_gamma_0_is_the_stock_pipeline_bit_for_bit(name, policy):
    case = make_case(name)
    stock = case.draw_stock()
    assert torch.equal(case.draw(policy, 0.0).images, stock)
    with attach(case.pipe, policy, 0.0):
        assert torch.equal(case.draw_stock(), stock)
    assert not torch.equal(case.draw(policy, 1.0).images, stock)


@pytest.mark.parametrize("policy", RIVALS)
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_also_in_bf16(name, policy):
    case = make_case(name)
    case.pipe.to(torch.bfloat16)
    assert torch.equal(case.draw(policy, 0.0).images, case.draw_stock())


@pytest.mark.parametrize("policy", RIVALS)
@pytest.mark.parametrize(
    ("name", "scheduler"),
    [("sd3", "euler"), ("sd3", "heun"), ("flux", "euler"), ("flux-cfg", "unipc")],
)
def test_attach_equals_sample_to_the_last_bit(name, scheduler, policy):
    case = with_scheduler(name, scheduler)
    result = case.draw(policy, 1.5)
    with attach(case.pipe, policy, 1.5) as trace:
        images = case.draw_stock()
    assert torch.equal(images, result.images)
    assert torch.equal(trace.cond_sigmas, result.cond_sigmas)
    assert torch.equal(trace.deviations, result.deviations)
    assert result.latents.isfinite().all()


@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps(steps):
    for policy in RIVALS:
        result = make_case("sd3").draw(policy, num_inference_steps=steps)
        assert result.deviations.shape == (2, steps - 1)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: DetailDaemon(1.5), r"^amount 1.5 is outside \[-1, 1\]$"),
        (lambda: DetailDaemon(math.nan), "amount nan is outside"),
        (lambda: DetailDaemon("x"), "amount is a number, not 'x'"),
        (lambda: DetailDaemon(start=0.8, end=0.2), "^start 0.8 is after end 0.2$"),
        (lambda: DetailDaemon(end=1.2), r"end 1.2 is outside \[0, 1\]"),
        (lambda: DetailDaemon(bias=-1), r"bias -1 is outside \[0, 1\]"),
        (lambda: DetailDaemon(exponent=-1), r"exponent -1 is outside \[0, 10\]"),
        (lambda: VelocityScale(0.4), r"^scale 0.4 is outside \[0.5, 1.5\]$"),
        (lambda: Combined(1.1, 1), r"^deviation 1.1 is outside \[-1, 1\]$"),
        (lambda: Combined(1, 1.6), r"^scale 1.6 is outside \[0.5, 1.5\]$"),
        (lambda: ScaledSchedule([1.1], [1]), r"^deviation 1.1 is outside \[-1, 1\]$"),
        (lambda: ScaledSchedule([1], [1.6]), r"^scale 1.6 is outside \[0.5, 1.5\]$"),
        (lambda: ScaledSchedule([1, 0], [1]), "each deviation has a velocity scale.* 2 and 1$"),
        (lambda: ScaledSchedule([], []), "^no deviation given$"),
        (lambda: TimeShift(1.1), r"^window 1.1 is outside \[0, 1\]$"),
        (lambda: TimeShift(True), "window is a number, not True"),
    ],
)
def test_what_is_out_of_range_gets_one_line(make, line):
    with pytest.raises(InputError, match=line) as caught:
        make()
    assert "\n" not in str(caught.value)
