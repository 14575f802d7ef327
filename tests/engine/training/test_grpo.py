"""Eq. 14 to 16 against numbers worked out by hand, and the update that is made of them."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule, excess
from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import parse_recipe
from asyncdiff_cli.engine.training.rollout import Rollout
from asyncdiff_cli.engine.training.update import decided, minibatches, update
from tests.helpers.modules import randomised, seen, tiny
from tests.helpers.rounding import assert_rounded, terms

DECISIONS = 5


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_advantages_are_z_scores_within_each_group():
    """Means 2 and 20, deviations √(2/3) and √200."""
    rewards = double([1, 2, 3], [0, 20, 40])
    expected = math.sqrt(1.5) * double([-1, 0, 1], [-1, 0, 1])
    assert torch.allclose(grpo.advantages(rewards), expected, atol=1e-5)
    assert torch.allclose(grpo.advantages(rewards[0]), expected[0], atol=1e-5)


def test_with_a_shared_scale_a_group_counts_by_how_much_it_differs():
    rewards = torch.stack([double(1, 3), double(5, 5.2)])
    # centred: ∓1 and ∓0.1; their root mean square is √((1 + 1 + 0.01 + 0.01) / 4)
    scale = (2.02 / 4) ** 0.5 + 1e-6
    expected = torch.stack([double(-1, 1), double(-0.1, 0.1)]) / scale
    assert torch.allclose(grpo.advantages(rewards, shared_scale=True), expected)
    assert (grpo.advantages(torch.full((2, 3), 7.0), shared_scale=True) == 0).all()


def test_a_group_of_equals_has_no_advantage():
    rewards = double([0.1, 0.1, 0.1], [1, 2, 3]) + double(1e-12, 0, 0)
    assert torch.equal(grpo.advantages(rewards)[0], double(0, 0, 0))
    assert grpo.advantages(rewards)[1].abs().max() > 1


def test_a_trajectory_s_log_probability_is_the_sum_over_its_decisions():
    """Beta(2, 2) has the density 6·r·(1 − r), and Beta(3, 2) 12·r²·(1 − r)."""
    alpha_excess, beta_excess = double([1, 1], [2, 2]), torch.ones(2, 2)
    ratio = double([0.5, 0.2], [0.25, 0.5])
    expected = double(
        math.log(6 * 0.5 * 0.5) + math.log(12 * 0.25**2 * 0.75),
        math.log(6 * 0.2 * 0.8) + math.log(12 * 0.5**2 * 0.5),
    )
    assert torch.allclose(grpo.log_prob(alpha_excess, beta_excess, ratio), expected)


@pytest.mark.parametrize("steps", [2, 10, 15])
def test_a_run_of_k_steps_counts_k_minus_one_decisions(steps):
    """Of the density 1.5 each, at the middle of Beta(2, 2)."""
    ones = torch.ones(steps - 1, 3)
    log_prob = grpo.log_prob(ones, ones, ones / 2)
    assert log_prob.shape == (3,)
    assert torch.allclose(log_prob, (steps - 1) * double(1.5, 1.5, 1.5).log())


def test_sums_over_many_steps_do_not_drown_in_rounding():
    ones = torch.ones(1000, 1)
    ratio = torch.full((1000, 1), 0.3)
    exact = 1000 * (math.log(6) + math.log(ratio[0].item()) + math.log1p(-ratio[0].item()))
    assert grpo.log_prob(ones, ones, ratio).dtype == torch.float64
    assert grpo.log_prob(ones, ones, ratio).item() == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "clipped"),
    [
        (1.5, 2.0, 2.4, True),  # 1.2 · 2: better by more than it may
        (1.5, -2.0, -3.0, False),  # 1.5 · −2: worse, and pushed back in full
        (0.5, 2.0, 1.0, False),  # 0.5 · 2: rarer than before, and pulled back in full
        (0.5, -2.0, -1.6, True),  # 0.8 · −2: rarer by more than it may
        (1.1, 2.0, 2.2, False),
        (0.9, -2.0, -1.8, False),
        (1.0, 2.0, 2.0, False),
    ],
)
def test_the_surrogate_in_all_its_cases(ratio, advantage, gain, clipped):
    old = double(-3.0)
    new = (old + math.log(ratio)).requires_grad_()
    arguments = new, old, double(advantage), 0.2
    surrogate = grpo.clipped_surrogate(*arguments)
    assert surrogate.item() == pytest.approx(gain)
    assert grpo.is_clipped(*arguments).tolist() == [clipped]
    (slope,) = torch.autograd.grad(surrogate.sum(), new)
    assert slope.item() == pytest.approx(0 if clipped else ratio * advantage)


def test_each_trajectory_has_one_ratio_of_its_own():
    old, new = double(0, 0, 0), double(1.5, 0.5, 1.1).log()
    advantage = double(1, 1, -1)
    assert grpo.clipped_surrogate(new, old, advantage, 0.2).tolist() == pytest.approx(
        [1.2, 0.5, -1.1]
    )
    assert grpo.is_clipped(new, old, advantage, 0.2).tolist() == [True, False, False]


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    a, b, new = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in SHAPES)
    ratio = 0.05 + 0.9 * torch.rand(DECISIONS, 4, dtype=torch.float64)
    old = (new + double(0.4, -0.4, 0.1, -0.1)).detach()  # on both sides of the clip range
    advantage = double(1, -1, -2, 0.5)

    def log_prob(a, b):
        return grpo.log_prob(excess(a), excess(b), ratio)

    def surrogate(new):
        return grpo.clipped_surrogate(new, old, advantage, 0.2)

    assert torch.autograd.gradcheck(log_prob, (a, b))
    assert torch.autograd.gradcheck(surrogate, (new,))
    assert torch.autograd.gradcheck(lambda a, b: grpo.kl_to_initial(excess(a), excess(b)), (a, b))
    assert torch.autograd.gradcheck(lambda a, b: grpo.entropy(excess(a), excess(b)), (a, b))


SHAPES = (DECISIONS, 4), (DECISIONS, 4), (4,)


def test_the_divergence_from_the_initial_policy():
    """KL(Beta(3, 2) ‖ Beta(2, 2)) = ln(B(2, 2)/B(3, 2)) + ψ(3) − ψ(5) = ln 2 − 1/3 − 1/4."""
    at_start = grpo.kl_to_initial(torch.ones(2, 3), torch.ones(2, 3))
    assert torch.equal(at_start, torch.zeros(2, 3, dtype=torch.float64))
    for shape in ((2.0, 1.0), (1.0, 2.0)):
        divergence = grpo.kl_to_initial(*double(*shape))
        assert divergence.item() == pytest.approx(math.log(2) - 7 / 12)


def test_a_normalized_log_ratio_by_hand():
    """From Beta(2, 2), of variance 1/20, to Beta(3, 2): the densities at 0.5 are both 1.5, and the
    divergence is ln(B(3, 2)/B(2, 2)) − ψ(2) + ψ(4) = 5/6 − ln 2. Two such decisions."""
    old, new = (
        grpo.beta(*double([1, 1], [1, 1])[:, :, None]),
        grpo.beta(*double([2, 2], [1, 1])[:, :, None]),
    )
    found = grpo.normalized_log_ratio(new, old, double([0.5], [0.5]))
    assert found.tolist() == pytest.approx([2 * 0.05**0.5 * (5 / 6 - math.log(2))])


def test_a_normalized_log_ratio_is_0_in_the_mean():
    """Over draws of the old policy, where the plain one is −KL."""
    torch.manual_seed(0)
    old, new = grpo.beta(*double([1], [1])), grpo.beta(*double([2], [1]))
    draws = old.sample((100_000,))
    mean = torch.stack([grpo.normalized_log_ratio(new, old, r) for r in draws.T]).mean()
    plain = (new.log_prob(draws) - old.log_prob(draws)).mean()
    assert abs(float(mean)) / 100_000 < 1e-3 < -float(plain)


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_the_divergence_is_never_negative(a, b):
    assert grpo.kl_to_initial(*excess(double(a, b))) >= -1e-9


def test_entropy_of_known_distributions():
    """0 for the uniform one; ln(1/6) + 5/3 for Beta(2, 2), whose ψ(4) − ψ(2) is 5/6."""
    nearly_uniform = double(1e-12, 1e-12)
    assert grpo.entropy(*nearly_uniform).item() == pytest.approx(0, abs=1e-9)
    assert grpo.entropy(*double(1, 1)).item() == pytest.approx(5 / 3 - math.log(6))
    sharp = grpo.entropy(*double(99, 99))
    assert sharp < grpo.entropy(*double(9, 9)) < grpo.entropy(*double(1, 1)) < 0


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_the_approximate_divergence_is_never_negative(new, old):
    assert grpo.approximate_kl(double(new), double(old)) >= 0


def test_the_approximate_divergence_at_known_ratios():
    kl = grpo.approximate_kl(double(2, 0.5, 1).log(), double(1, 1, 1).log())
    assert torch.allclose(kl, double(1 - math.log(2), math.log(2) - 0.5, 0))
    tiny_step = grpo.approximate_kl(double(1e-6), double(0))
    assert tiny_step.item() == pytest.approx(5e-13, rel=1e-5)  # x²/2, which 1e-16 would drown


def test_the_divergence_is_the_mean_of_its_estimate():
    """E of r − 1 − ln r over draws of the old policy is KL(old ‖ new)."""
    torch.manual_seed(0)
    old, new = grpo.beta(*double(1, 1)), grpo.beta(*double(1.5, 1))
    draws = old.sample((200_000,))
    estimate = grpo.approximate_kl(new.log_prob(draws), old.log_prob(draws)).mean()
    exact = torch.distributions.kl_divergence(old, new)
    assert estimate.item() == pytest.approx(exact.item(), rel=0.03)


def settings(**options) -> Recipe:
    values = {"num_inference_steps": DECISIONS + 1, "rewards": {"noise": 1.0}}
    return parse_recipe({**values, **options})


ALONE = SimpleNamespace(num_processes=1)


def rollout() -> Rollout:
    """Sixteen trajectories; only what the module saw and drew counts for the update."""
    torch.manual_seed(3)
    ratios = 0.02 + 0.96 * torch.rand(DECISIONS, 16)
    return Rollout([], [], seen(batch=16, decisions=DECISIONS), ratios, torch.zeros(0))


def in_batches(size: int) -> list[list[int]]:
    return minibatches(range(16), 16, size)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_first_ratio_is_one_to_the_bit(size):
    """The same mini-batches with gradients give the same bits as before the update without."""
    tpm, drawn = randomised(tiny()), rollout()
    before = decided(tpm, drawn, in_batches(size))
    assert len(set(before.log_probs.tolist())) == 16
    for places in in_batches(size):
        a, b = tpm(drawn.seen.select(places))
        now = grpo.log_prob(a, b, drawn.ratios[:, places])
        assert now.requires_grad
        assert torch.equal(now, before.log_probs[places])


def test_what_was_decided_is_told_per_trajectory():
    tpm, drawn = randomised(tiny()), rollout()
    before = decided(tpm, drawn, in_batches(4))
    with torch.no_grad():
        a, b = tpm(drawn.seen)
    expected = grpo.log_prob(a, b, drawn.ratios), 1 + a.T, 1 + b.T, grpo.entropy(a, b).mean(0)
    found = before.log_probs, before.alpha, before.beta, before.entropy
    for ours, theirs in zip(found, expected, strict=True):
        assert_rounded(ours.float(), theirs.float(), terms(tpm))


def apply(tpm: TimestepPredictionModule, recipe: Recipe, lr=0.0, advantages=None):
    drawn = rollout()
    gain = grpo.advantages(torch.randn(16, dtype=torch.float64))
    optimizer = torch.optim.SGD(tpm.parameters(), lr=lr)
    parts = in_batches(recipe.mini_batch_size)
    before = decided(tpm, drawn, parts)
    chosen = gain if advantages is None else advantages
    return update(tpm, optimizer, drawn, before, parts, chosen, recipe, ALONE)


def test_an_update_that_moves_nothing_measures_exactly_nothing():
    progress = apply(randomised(tiny()), settings(epochs=2))
    assert (progress.approximate_kl, progress.clipped, progress.trajectories) == (0.0, 0, 32)
    assert progress.grad_norm > 0
    moved = apply(randomised(tiny()), settings(epochs=2), lr=1.0)
    assert moved.approximate_kl > 1e-4


def gradient(tpm: TimestepPredictionModule) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in tpm.parameters()])


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        ({}, lambda a, b: 0),
        ({"kl_weight": 0.5}, lambda a, b: 0.5 * grpo.kl_to_initial(a, b).mean(0)),
        ({"entropy_weight": 0.5}, lambda a, b: -0.5 * grpo.entropy(a, b).mean(0)),
    ],
)
def test_the_first_step_follows_the_policy_gradient(options, extra):
    """At the ratio 1 the gradient of Eq. 14 is the mean of Â·∇log π."""
    tpm, drawn = randomised(tiny()), rollout()
    advantages = grpo.advantages(torch.arange(16.0).double() % 5)
    apply(tpm, settings(mini_batch_size=16, max_grad_norm=1e6, **options), advantages=advantages)
    told = gradient(tpm)
    tpm.zero_grad()
    a, b = tpm(drawn.seen)
    loss = -(advantages * grpo.log_prob(a, b, drawn.ratios)) + extra(a, b)
    loss.mean().backward()
    assert told.norm() > 1e-2
    assert torch.allclose(told, gradient(tpm), atol=1e-5 * float(told.norm()))


def test_with_the_ratio_normalized_each_decision_counts_by_its_beta_s_deviation():
    """At the ratio 1 the gradient is the mean of Â·Σ σ_k·∇log π_k."""
    tpm, drawn = randomised(tiny()), rollout()
    advantages = grpo.advantages(torch.arange(16.0).double() % 5)
    recipe = settings(mini_batch_size=16, max_grad_norm=1e6, estimator={"ratio_norm": True})
    apply(tpm, recipe, advantages=advantages)
    told = gradient(tpm)
    tpm.zero_grad()
    policy = grpo.beta(*tpm(drawn.seen))
    weighed = policy.stddev.detach() * policy.log_prob(drawn.ratios.double())
    (-(advantages * weighed.sum(0)).mean()).backward()
    assert told.norm() > 1e-3
    assert torch.allclose(told, gradient(tpm), atol=1e-5 * float(told.norm()))


def test_the_gradient_s_norm_is_clipped_and_reported_before():
    tpm = randomised(tiny())
    progress = apply(tpm, settings(mini_batch_size=16, max_grad_norm=1e-3))
    assert progress.grad_norm > 1e-2
    assert gradient(tpm).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_a_bad_gradient_is_not_applied():
    tpm = randomised(tiny())
    before = [p.clone() for p in tpm.parameters()]
    bad = torch.full((16,), math.nan, dtype=torch.float64)
    with pytest.raises(AsyncDiffError, match="the gradient's norm is nan"):
        apply(tpm, settings(), lr=1.0, advantages=bad)
    assert all(torch.equal(p, b) for p, b in zip(tpm.parameters(), before, strict=True))


def test_minibatches_are_of_consecutive_trajectories_whoever_holds_them():
    assert minibatches(range(8), 8, 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert minibatches([1, 3, 5, 7], 8, 4) == [[0, 1], [2, 3]]
    assert minibatches([0, 1, 2], 8, 4) == [[0, 1, 2], []]
