"""Rules of other tools and papers against loops that say them in their own words."""

import json
import math
from itertools import pairwise

import pytest
import torch

from asyncdiff_cli.engine import (
    DetailDaemon,
    EpsilonScaling,
    InputError,
    ModelDetailBoost,
    NoiseShift,
    SamplerDetailBoost,
    SpectralDeviation,
    Synchronous,
    VelocityScale,
    policy_from_dict,
)
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.figures.explain_request import ExplainRequest
from asyncdiff_cli.engine.figures.explanation import Explained, explain, of_shift
from asyncdiff_cli.engine.policies.asking import latent_scale_of, scaled, velocity_scale_of
from asyncdiff_cli.engine.policies.base import Policy
from asyncdiff_cli.engine.policies.given import FixedDeviation
from asyncdiff_cli.engine.policies.per_image import EachPolicy
from asyncdiff_cli.engine.policies.recorded import check_policy
from asyncdiff_cli.engine.policies.specs import ChosenPolicy
from asyncdiff_cli.engine.policies.transfer import transfer, velocity_coefficient
from asyncdiff_cli.engine.sampling.loop import integrate
from tests.conftest import make_case
from tests.helpers.by_hand import sd3
from tests.helpers.integration import TEXT, scheduler_on_a_grid
from tests.helpers.spectra import IMAGES

START = torch.tensor([[0.7, -0.4, 1.3], [0.2, -1.1, 0.5]])


def bent(x, time):
    """Neither straight nor linear, in x and in t."""
    return torch.sin(2 * x) * (0.5 + time.reshape(-1, 1)) - 0.3 * x**2


def by_epsilon_scaling(x, sigmas, field, scale, slope=0.0):
    """DDIM with ε divided: x0 is what is left of x, and both are mixed anew."""
    for t, t_next in pairwise(sigmas):
        v = field(x, torch.full((len(x),), t))
        if t > 80 / 81:
            x = x + (t_next - t) * v
            continue
        noise = (x + (1 - t) * v) / (scale + slope * t)
        clean = (x - t * noise) / (1 - t)
        x = (1 - t_next) * clean + t_next * noise
    return x


def down(t, eta):
    """The end of an ancestral step to t: noise of η·t is added to what is left."""
    left = math.sqrt(t**2 - (eta * t) ** 2)
    return left / ((1 - t) + left)


def by_model_boost(x, sigmas, field, weight, eta, steps):
    for k, (t, t_next) in enumerate(pairwise(sigmas)):
        told = t + weight * (down(t, eta) - t) if k in steps else t
        clean = x - told * field(x, torch.full((len(x),), told))
        x = x + (t_next - t) * (x - clean) / t
    return x


def by_sampler_boost(x, sigmas, field, weight, eta, steps):
    for k, (t, t_next) in enumerate(pairwise(sigmas)):
        slope = field(x, torch.full((len(x),), t))
        if k in steps and t_next > 0:
            misjudged = t_next + weight * (down(t_next, eta) - t_next)
            slope = slope * (1 - weight * (t_next / misjudged - 1))
        x = x + (t_next - t) * slope
    return x


def by_noise_shift(x, sigmas, field, shift):
    for t, t_next in pairwise(sigmas):
        told = 1 / (1 + (1 - t) / t / shift)
        x = x + (t_next - t) * field(x, torch.full((len(x),), told))
    return x


RULES = {
    "epsilon": (EpsilonScaling(1.08), lambda *a: by_epsilon_scaling(*a, 1.08)),
    "epsilon, linear": (
        EpsilonScaling(1.02, 0.2),
        lambda *a: by_epsilon_scaling(*a, 1.02, 0.2),
    ),
    "model": (
        ModelDetailBoost(0.8, 0.6, 1, 4),
        lambda *a: by_model_boost(*a, 0.8, 0.6, range(1, 4)),
    ),
    "sampler": (
        SamplerDetailBoost(0.8, 0.6, 1, 10),
        lambda *a: by_sampler_boost(*a, 0.8, 0.6, range(1, 10)),
    ),
    "shift": (NoiseShift(1.4), lambda *a: by_noise_shift(*a, 1.4)),
}


def run(policy, scheduler, field, gamma=1.0):
    """The last latents, and t* and D as `integrate` returns them."""
    return integrate(
        lambda x, t, sigma, told: field(x, told), scheduler, START, policy, gamma, TEXT
    )


def still(x, time):
    return torch.zeros_like(x)


@pytest.mark.parametrize(("policy", "rule"), RULES.values(), ids=RULES)
def test_on_a_field_it_is_the_rule_written_out(policy, rule):
    scheduler = scheduler_on_a_grid("euler")
    drawn = run(policy, scheduler, bent)[0].double()
    sigmas = scheduler.sigmas.tolist()
    assert torch.allclose(drawn, rule(START.double(), sigmas, bent), atol=2e-6)
    without = by_noise_shift(START.double(), sigmas, bent, 1.0)
    assert not torch.allclose(drawn, without, atol=1e-3)


@pytest.mark.parametrize(("policy", "rule"), RULES.values(), ids=RULES)
def test_with_a_model_it_is_the_rule_written_out(policy, rule):
    case = make_case("sd3")
    x, sigmas, field = sd3(case)
    with torch.no_grad():
        expected = rule(x, sigmas, field)
    drawn = case.draw(policy, 1.0).latents
    assert torch.allclose(drawn, expected, atol=1e-4 * float(expected.abs().max()))


def test_gamma_scales_the_share_of_the_noise_and_the_log_snr():
    """1 − 1/λ, so that γ = 2 makes 0.9 of 1/λ = 0.95; and the logarithm of a shift."""

    def draw(policy, gamma):
        return run(policy, scheduler_on_a_grid("euler"), bent, gamma)[0]

    twice, once = draw(EpsilonScaling(1 / 0.95), 2.0), draw(EpsilonScaling(1 / 0.9), 1.0)
    assert torch.allclose(twice, once, atol=1e-6)
    assert torch.allclose(draw(NoiseShift(1.2), 2.0), draw(NoiseShift(1.44), 1.0), atol=1e-6)
    assert torch.allclose(draw(NoiseShift(1.2), -1.0), draw(NoiseShift(1 / 1.2), 1.0), atol=1e-6)


@pytest.mark.parametrize("gamma", [1e9, -1e9])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp", "unipc"])
def test_times_that_are_told_keep_within_the_run(name, gamma):
    for policy in (NoiseShift(2.0), ModelDetailBoost(start_step=0)):
        _, told, _ = run(policy, scheduler_on_a_grid(name), still, gamma)
        times = torch.stack(told)
        assert times.min() >= 1e-3
        assert times.max() <= 1


@pytest.mark.parametrize("policy", [NoiseShift(1.5), ModelDetailBoost(0.7, start_step=0)])
def test_the_deviation_leads_to_the_time_that_is_told(policy):
    scheduler = scheduler_on_a_grid("euler")
    _, told, deviations = run(policy, scheduler, still)
    sigmas = scheduler.sigmas
    for k, deviation in enumerate(deviations):
        by_eq_6 = sigmas[k] + (1 + deviation) * (sigmas[k + 1] - sigmas[k])
        assert torch.allclose(by_eq_6, told[k + 1], atol=1e-6)
        assert (deviation * (1 if policy.name == "model-boost" else -1) > 0).all()


def test_pure_noise_is_left_alone():
    """ε̂ is x at t = 1, and v' infinite."""
    policy, told = EpsilonScaling(1.1), torch.ones(2)
    for time in (1.0, 1 - 1e-6, 0.99):
        now = torch.tensor(time)
        assert torch.equal(velocity_scale_of(policy, now, told, 1.0), torch.ones(2))
        assert torch.equal(latent_scale_of(policy, now, told, 1.0), torch.zeros(2))
    assert (latent_scale_of(policy, torch.tensor(0.98), told, 1.0) < -1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_multiple_of_0_changes_no_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    latents, velocity = torch.randn(2, 2, 4, 8, 8, generator=generator).to(dtype)
    latents[0, 0, 0, 0] = math.inf
    velocity[0, 0, 0, 1] = -0.0
    policy = EachPolicy([Synchronous(), EpsilonScaling(1.1)], [1.0, 1.0])
    now, told = torch.tensor(0.5), torch.tensor([0.5, 0.5])
    found = scaled(policy, 1.0, latents, velocity, now, told)
    assert found.dtype == dtype
    assert torch.equal(found[0], velocity[0])
    assert found[0].signbit()[0, 0, 1]
    noise = (latents[1].double() + velocity[1].double() / 2) / 1.1
    assert torch.allclose(found[1].double(), 2 * (noise - latents[1].double()), atol=0.05)
    assert EachPolicy([Synchronous()], [1.0]).latent_scale(now, told[:1], 1.0) is None


def test_they_share_a_batch():
    case = make_case("sd3")
    policies = [EpsilonScaling(1.05), SamplerDetailBoost(start_step=0)]
    together = case.draw(EachPolicy(policies, [1.0, 0.5]), 1.0).latents
    for i, (policy, gamma) in enumerate(zip(policies, (1.0, 0.5), strict=True)):
        assert torch.allclose(together[i], case.draw(policy, gamma).latents[i], atol=1e-6)


ALL = [
    EpsilonScaling(1.02, 0.1),
    ModelDetailBoost(0.5, 0.4, 1, 8),
    SamplerDetailBoost(-0.5, 0.4, 0, 8),
    NoiseShift(1.5),
    DetailDaemon(0.2, start_offset=-0.1, end_offset=0.3, fade=0.25),
]


@pytest.mark.parametrize("policy", ALL)
def test_a_record_makes_the_same_policy(policy):
    recorded = json.loads(json.dumps(policy.to_dict()))
    check_policy("a.png", recorded)
    assert policy_from_dict(recorded) == policy


def test_a_record_from_before_the_offsets_makes_what_it_made():
    recorded = {"name": "detail-daemon", "amount": 0.2, "start": 0.1, "end": 0.9, "bias": 0.5}
    assert policy_from_dict(recorded) == DetailDaemon(0.2, 0.1, 0.9)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: EpsilonScaling(1.6), r"^scale 1.6 is outside \[0.5, 1.5\]$"),
        (lambda: EpsilonScaling(1.2, 0.4), r"^scale 1.6 is outside \[0.5, 1.5\]$"),
        (lambda: EpsilonScaling(slope=math.nan), "slope is a finite number, not nan"),
        (lambda: NoiseShift(0), r"^shift 0 is outside \[0.1, 10\]$"),
        (lambda: NoiseShift("x"), "shift is a number, not 'x'"),
        (lambda: ModelDetailBoost(101), r"^weight 101 is outside \[-100, 100\]$"),
        (lambda: SamplerDetailBoost(eta=1), r"^eta 1 is outside \[0, 0.99\]$"),
        (lambda: SamplerDetailBoost(start_step=-1), r"^start_step -1 is outside \[0, "),
        (lambda: ModelDetailBoost(end_step=-1), r"^end_step -1 is outside \[0, "),
        (lambda: DetailDaemon(start_offset=2), r"^start_offset 2 is outside \[-1, 1\]$"),
        (lambda: DetailDaemon(end_offset=-2), r"^end_offset -2 is outside \[-1, 1\]$"),
        (lambda: DetailDaemon(fade=1.5), r"^fade 1.5 is outside \[0, 1\]$"),
    ],
)
def test_what_is_out_of_range_gets_one_line(make, line):
    with pytest.raises(InputError, match=line):
        make()


def test_transfer_is_what_the_sampler_makes_of_both_scales():
    std = torch.tensor([0.02, 0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    for solver in ("euler", "dpmpp"):
        scheduler = scheduler_on_a_grid(solver)
        policy = EpsilonScaling(1.05)
        drawn, told, _ = integrate(
            lambda x, t, sigma, told: velocity_coefficient(told.double()[:, None], std) * x,
            scheduler,
            torch.ones(1, len(std), dtype=torch.float64),
            policy,
            1.0,
            TEXT,
        )
        pairs = list(zip(scheduler.sigmas, told, strict=False))
        scales = [
            torch.cat([value_of(policy, sigma, at, 1.0) for sigma, at in pairs])
            for value_of in (velocity_scale_of, latent_scale_of)
        ]
        factors = transfer(scheduler.sigmas, torch.cat(told), std, solver, *scales)
        assert factors.numpy() == pytest.approx(drawn[0].numpy(), rel=1e-5, abs=1e-5)


def explained(policy: Policy, solver: str = "euler", steps: int = 10) -> Explained:
    chosen = [ChosenPolicy(policy.to_dict()["name"], policy, 1.0)]
    make = of_shift(ExplainRequest("baseline", ModelChoice()))
    return explain(make, steps, solver, chosen, IMAGES).policies[0]


TABLE = {
    # its best number, what is made of a number; error, steps that it is worth, noise left
    "synchronous": (0.0, lambda _: Synchronous(), 0.0282, 10, 0.1),
    "sampler boost": (0.0, SamplerDetailBoost, 0.0282, 10, 0.1),
    "velocity scale": (1.04, VelocityScale, 0.0273, 11, 0.4),
    "model boost": (0.43, ModelDetailBoost, 0.0273, 11, 0.1),
    "detail daemon": (0.12, DetailDaemon, 0.0235, 12, 0.1),
    "detail daemon, all": (0.12, lambda a: DetailDaemon(a, 0.0, 1.0), 0.0184, 13, 0.1),
    "noise shift": (0.66, NoiseShift, 0.0112, 17, 3.2),
    "constant D": (0.78, FixedDeviation, 0.0091, 19, 10.5),
    "spectral": (1.0, lambda _: SpectralDeviation(), 0.0088, 19, 0.7),
    "epsilon, as published": (1.005, lambda _: EpsilonScaling(), 0.0231, 12, 0.1),
    "epsilon": (1.049, EpsilonScaling, 0.0011, 54, 1.1),
}
"""What docs/theory.md says of today's rivals on Gaussian data."""


@pytest.mark.parametrize("name", TABLE)
def test_what_rivals_make_of_gaussian_data(name):
    best, make, error, worth, noise = TABLE[name]
    found = explained(make(best))
    assert found.error == pytest.approx(error, abs=6e-5)
    assert found.worth_steps == worth
    assert found.residual_noise == pytest.approx(noise, abs=0.06)
    for off in (-0.02, 0.02):
        assert explained(make(best + off)).error >= found.error


def test_the_rival_of_second_order():
    found = explained(Synchronous(), "dpmpp")
    assert found.error == pytest.approx(0.0065, abs=6e-5)
    assert found.worth_steps == 22


@pytest.mark.parametrize(("steps", "best", "error"), [(5, 1.117, 0.0058), (15, 1.03, 0.0005)])
def test_fewer_steps_want_more_epsilon_scaling(steps, best, error):
    found = explained(EpsilonScaling(best), steps=steps).error
    assert found == pytest.approx(error, abs=6e-5)
    for off in (-0.002, 0.002):
        assert explained(EpsilonScaling(best + off), steps=steps).error >= found


def test_a_noisier_time_makes_it_worse_here():
    errors = [explained(NoiseShift(shift)).error for shift in (1.0, 1.05, 1.2, 1.5, 3.0)]
    assert errors == sorted(errors)


def test_no_weight_of_the_samplers_boost_makes_it_better_here():
    weights = (-1.0, -0.3, 0.3, 1.0)
    assert min(explained(SamplerDetailBoost(weight)).error for weight in weights) > 0.0282
