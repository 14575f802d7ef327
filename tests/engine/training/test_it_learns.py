"""The whole of GRPO on a field whose best conditioning times are known."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import FlowMatchEulerDiscreteScheduler

from asyncdiff_cli.engine import LearnedDeviation, Policy, Synchronous, TimestepPredictionModule
from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.drawing.seeds import DRAWS, generator
from asyncdiff_cli.engine.policies.learned import SampledDeviation
from asyncdiff_cli.engine.policies.observation import Observation
from asyncdiff_cli.engine.sampling.loop import integrate
from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import parse_recipe
from asyncdiff_cli.engine.training.rollout import Rollout
from asyncdiff_cli.engine.training.update import decided, minibatches, update

STEPS = 5
BEST = torch.tensor([0.3, -0.2, 0.1, -0.35])
"""The deviation that is exactly right, at each of the decisions."""
CHANNELS = STEPS - 1


def scheduler_on_a_grid() -> FlowMatchEulerDiscreteScheduler:
    """Times 1, 0.8, … 0.2, 0: every error weighs the same."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / STEPS, STEPS))
    return scheduler


def draw(policy: Policy, data: torch.Tensor, noise: torch.Tensor, best: torch.Tensor = BEST):
    """Final latents and deviations along straight paths from the noise to the data, on which a
    model errs at the wrong time.

    Evaluation k is right when it is conditioned on t_{k-1} + (1 + D)·(t_k − t_{k-1}) with the best
    D of its decision; channel k − 1 of the velocity is off by how far the time is from that.
    """
    scheduler = scheduler_on_a_grid()
    sigmas = scheduler.sigmas
    right = sigmas[:-2] + (1 + best) * (sigmas[1:-1] - sigmas[:-2])

    def velocity(latents, timestep, sigma, cond_sigma):
        k = int((sigmas == sigma).nonzero())
        field = noise - data
        if k > 0:
            field[:, k - 1] += (cond_sigma - right[k - 1])[:, None, None]
        return field

    text = TextConditions(torch.zeros(len(data), 1, 2))
    final, _, deviations = integrate(velocity, scheduler, noise, policy, 1.0, text)
    return final, torch.stack(deviations, dim=1)


def pictures(count: int, *key: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Data and noise."""
    drawn = generator(*key).normal(size=(2, count, CHANNELS, 2, 2))
    return tuple(torch.from_numpy(drawn).float())


def reward(final: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """How near the image is to the data."""
    return -(final - data).double().square().sum((1, 2, 3))


def small_tpm() -> TimestepPredictionModule:
    torch.manual_seed(0)
    return TimestepPredictionModule(CHANNELS, 2, 2, 0.5, 32, layers=1, heads=2, patch_size=2)


RECIPE = parse_recipe(
    {
        "num_inference_steps": STEPS,
        "rewards": {"noise": 1.0},  # not computed: the reward is the distance above
        "group_size": 64,
        "mini_batch_size": 16,
        "learning_rate": 1e-3,
        "iterations": 120,
    }
)


def train(sign: float, best: torch.Tensor, recipe: Recipe = RECIPE) -> TimestepPredictionModule:
    tpm = small_tpm()
    optimizer = torch.optim.AdamW(tpm.parameters(), lr=recipe.learning_rate)
    count, accelerator = recipe.group_size, Accelerator(cpu=True)
    parts = minibatches(range(count), count, recipe.mini_batch_size)
    for iteration in range(recipe.iterations):
        data, noise = pictures(count, recipe.seed, iteration)
        draws = [generator(recipe.seed, DRAWS, iteration, n) for n in range(count)]
        policy = SampledDeviation(tpm, draws)
        final, deviations = draw(policy, data, noise, best)
        seen, ratios = Observation.stack(policy.seen), torch.stack(policy.ratios)
        rollout = Rollout([], [], seen, ratios, deviations)
        old = decided(tpm, rollout, parts)
        gain = grpo.advantages(sign * reward(final, data))
        update(tpm, optimizer, rollout, old, parts, gain, recipe, accelerator)
    return tpm


def drawn(policy: Policy, best: torch.Tensor = BEST) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean deviations and reward on data and noise that no training sees."""
    data, noise = pictures(32, 7, 0)
    final, deviations = draw(policy, data, noise, best)
    assert deviations.std(0).max() < 0.05  # what is right does not depend on the image
    return deviations.mean(0), reward(final, data).mean()


def test_grpo_finds_the_right_deviation_of_every_step():
    before, base = drawn(Synchronous())
    after, gained = drawn(LearnedDeviation(train(1, BEST)))
    assert (before - BEST).abs().mean() > 0.2
    assert (after - BEST).abs().mean() < 0.05
    assert (after - BEST).abs().max() < 0.1
    assert gained > base / 20  # a twentieth of the squared distance


@pytest.mark.slow
def test_the_opposite_reward_moves_it_the_opposite_way():
    """With the best deviations all above 0, the furthest from all of them is the lower bound."""
    best, recipe = BEST.abs(), RECIPE.model_copy(update={"iterations": 40})
    _, base = drawn(Synchronous(), best)
    toward, gained = drawn(LearnedDeviation(train(1, best, recipe)), best)
    away, lost = drawn(LearnedDeviation(train(-1, best, recipe)), best)
    assert (toward - best).abs().max() < 0.1
    assert gained > base / 20
    assert away.max() < -0.45
    assert lost < 5 * base


def test_the_same_seed_learns_the_same():
    recipe = RECIPE.model_copy(update={"iterations": 3})
    one, other = (train(1, BEST, recipe).state_dict() for _ in range(2))
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    assert not torch.equal(one["readout"], small_tpm().readout)
