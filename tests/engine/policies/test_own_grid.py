"""Steps of an image's own lengths: the mathematics, and what is drawn with them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import dirichlet
from torch.distributions import Beta, Dirichlet, kl_divergence

from asyncdiff_cli.engine import InputError, LearnedDeviation, Synchronous, attach, desync, transfer
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, Stopwatch
from asyncdiff_cli.engine.policies.actions import ACTIONS, DEVIATION, SPACING
from asyncdiff_cli.engine.policies.own_grid import (
    concentration,
    scaled_by_gamma,
    shares_of,
    tilted,
    times_of,
)
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
from asyncdiff_cli.engine.policies.transfer import velocity_coefficient
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.draws import InverseDraws
from asyncdiff_cli.engine.training.recipe_files import parse_recipe
from asyncdiff_cli.engine.training.rollout import plan_iteration, roll_out
from asyncdiff_cli.engine.training.state import new_tpm
from asyncdiff_cli.engine.training.update import decided, minibatches
from benchmarks.gaussian import World
from tests.conftest import make_case
from tests.helpers.modules import SIZE, randomised

STEPS = 5
WORLD = World.of_images([0.3])
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case():
    return make_case("sd3")


def module(adapter, moved=True, actions=ACTIONS):
    torch.manual_seed(0)
    tpm = TimestepPredictionModule(**adapter.channels, actions=actions, **SIZE)
    return randomised(tpm) if moved else tpm


@given(
    lengths=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=24),
    gamma=st.floats(-1, 2),
)
@settings(max_examples=50)
def test_times_fall_from_end_to_end_and_gamma_0_gives_the_scheduler_s(lengths, gamma):
    grid = WORLD.grid(len(lengths) + 1)
    shares = shares_of(grid)
    chosen = tilted(shares, torch.tensor([lengths]))
    assert torch.allclose(chosen.sum(-1), torch.ones(1).double())
    times = times_of(grid, scaled_by_gamma(shares, chosen, gamma))[0]
    assert torch.equal(times[:2], grid[:2])
    assert times[-1] == 0
    assert (times.diff() < 0).all()
    assert torch.allclose(scaled_by_gamma(shares, chosen, 1.0), chosen)
    stock = times_of(grid, scaled_by_gamma(shares, chosen, 0.0))[0]
    assert torch.equal(stock.float(), grid.float())


def test_the_mode_of_the_dirichlet_is_the_scheduler_s_grid_or_tilted_from_it():
    grid, lengths = WORLD.grid(5), torch.tensor([[1.0, 2.0, 0.5, 1.0]])
    alpha = concentration(lengths, grid)
    mode = (alpha - 1) / (alpha.sum() - 4)
    assert torch.allclose(mode, tilted(shares_of(grid), lengths))
    assert torch.allclose(tilted(shares_of(grid), torch.full((1, 4), 0.3))[0], shares_of(grid))
    two = concentration(torch.ones(1, 2), torch.tensor([1.0, 0.8, 0.4, 0.0]))
    assert torch.allclose(two, torch.full((1, 2), 2.0).double())  # as Beta(2, 2)


def test_its_density_is_scipy_s_and_of_two_steps_a_beta_s():
    alpha, shares = torch.tensor([[2.0, 3.5, 1.2]]), torch.tensor([[0.2, 0.5, 0.3]])
    exact = dirichlet(alpha[0].double().numpy()).logpdf([0.2, 0.5, 0.3])
    assert grpo.grid_log_prob(alpha, shares).item() == pytest.approx(exact, abs=1e-6)
    pair = torch.tensor([[2.0, 3.0]]).double(), torch.tensor([[0.3, 0.7]]).double()
    of_beta = Beta(*pair[0][0]).log_prob(pair[1][0, 0])
    assert torch.allclose(grpo.grid_log_prob(*pair)[0], of_beta)
    assert grpo.grid_log_prob(torch.tensor([[2.0]]), torch.ones(1, 1)).item() == 0


def test_the_mean_log_ratio_of_draws_is_the_divergence():
    old, new = torch.tensor([2.0, 3.0, 2.5]).double(), torch.tensor([2.2, 2.8, 2.4]).double()
    draws = torch.from_numpy(np.random.default_rng(0).dirichlet(old.numpy(), 20_000))
    ratios = grpo.grid_log_prob(new.expand(len(draws), -1), draws) - grpo.grid_log_prob(
        old.expand(len(draws), -1), draws
    )
    divergence = kl_divergence(Dirichlet(old), Dirichlet(new))
    assert float(-ratios.mean()) == pytest.approx(float(divergence), abs=3e-3)


def test_mirrored_shares_are_of_the_same_dirichlet():
    alpha = np.array([2.0, 5.0, 3.0])

    def drawn_by(mirrored):
        draws = (InverseDraws(np.random.default_rng(seed), mirrored) for seed in range(800))
        return np.stack([own.dirichlet(alpha) for own in draws])

    drawn = [drawn_by(mirrored) for mirrored in (False, True)]
    for shares in drawn:
        assert shares.sum(1) == pytest.approx(1)
        assert shares.mean(0) == pytest.approx(alpha / 10, abs=0.02)
        assert shares.var(0) == pytest.approx(dirichlet(alpha).var(), rel=0.2)
    assert np.corrcoef(drawn[0][:, 0], drawn[1][:, 0])[0, 1] < -0.5


def test_untrained_or_at_gamma_0_it_is_the_synchronous_sampler_to_the_bit(case):
    stock = case.draw(Synchronous()).latents
    untrained = LearnedDeviation(module(case.backbone.adapter, moved=False))
    assert torch.equal(case.draw(untrained, gamma=1.5).latents, stock)
    learned = LearnedDeviation(module(case.backbone.adapter))
    assert torch.equal(case.draw(learned, gamma=0.0).latents, stock)
    assert not torch.allclose(case.draw(learned).latents, stock, atol=1e-3)


def test_a_pipeline_that_it_is_attached_to_draws_the_same_bits(case):
    policy = LearnedDeviation(module(case.backbone.adapter))
    ours = case.draw(policy, gamma=1.5)
    with attach(case.pipe, policy, 1.5) as trace:
        theirs = case.draw_stock()
    assert torch.equal(ours.images, theirs)
    assert torch.equal(trace.cond_sigmas, ours.cond_sigmas)


def test_other_solvers_are_refused(case):
    other = make_case("sd3")
    other.pipe.scheduler = make_scheduler("heun", "sd3", other.pipe.scheduler.config)
    with pytest.raises(InputError, match="chooses the grid draws with euler, not heun"):
        other.draw(LearnedDeviation(module(case.backbone.adapter)))


def rollout(**estimator):
    recipe = parse_recipe(
        {
            "num_inference_steps": STEPS,
            "rewards": {"noise": 1},
            "group_size": 4,
            "noises_per_prompt": 1,
            "actions": [DEVIATION, SPACING],
            "estimator": estimator,
            "tpm": {"width": 32, "layers": 1, "heads": 2},
        }
    )
    canvas = Canvas(WORLD.backbone())
    tpm = randomised(new_tpm(recipe, canvas.backbone))
    plan = plan_iteration(recipe, PromptSet("some", "train", (*WORLD.spectra,)), 0)
    return tpm, roll_out(canvas, tpm, plan, recipe, 0, BatchSize(4), Stopwatch(CPU))


def test_a_run_goes_by_its_own_grid_as_the_closed_form_says():
    _, found = rollout()
    times = times_of(found.sigmas, found.shares)
    for image in range(4):
        told = desync.cond_sigmas(times[image], found.deviations[image].double())
        factor = transfer(times[image], told, WORLD.std([*WORLD.spectra])[0])
        clean, noise = found.images[image].flatten(1)
        assert torch.allclose(clean, factor * noise, atol=1e-4)
    assert torch.allclose(found.seen.sigma.T.double(), times[:, :-2], atol=1e-6)
    told, (velocity, latents) = (
        found.seen.cond_sigma,
        (getattr(found.seen, name)[:, :, 0].flatten(2) for name in ("velocity", "latents")),
    )
    exact = velocity_coefficient(told[..., None], WORLD.std([*WORLD.spectra])) * latents
    assert torch.allclose(velocity, exact, atol=1e-4)  # as the model says it, not as it is stepped
    assert torch.allclose(found.seen.sigma_next.T.double(), times[:, 1:-1], atol=1e-6)


def test_a_grid_belongs_to_the_first_decision_s_probability():
    tpm, found = rollout()
    parts = minibatches(range(4), 4, 4)
    whole, each = (decided(tpm, found, parts, apart).log_probs for apart in (False, True))
    assert torch.allclose(each.sum(0), whole)
    with torch.no_grad():
        betas = grpo.log_prob(*tpm(found.seen), found.ratios, STEPS - 1)
        alpha = concentration(tpm.lengths(found.seen, found.sigmas), found.sigmas)
    own = grpo.grid_log_prob(alpha, found.shares)
    assert torch.allclose(each[0], betas[0] + own)
    assert torch.allclose(each[1:], betas[1:])


def test_branches_have_one_grid():
    _, found = rollout(branches=2)
    assert torch.allclose(found.shares[0], found.shares[1])
    assert torch.allclose(found.shares[2], found.shares[3])
    assert not torch.allclose(found.shares[1], found.shares[2])
