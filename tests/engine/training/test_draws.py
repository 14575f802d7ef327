"""Draws that are mirrored in pairs, or alike along a trajectory, each of its own Beta."""

import numpy as np
import pytest
from scipy.stats import beta, norm

from asyncdiff_cli.engine.drawing.seeds import DRAWS, generator
from asyncdiff_cli.engine.training.draws import InverseDraws, draws_of
from asyncdiff_cli.engine.training.recipe_files import parse_recipe


def recipe(antithetic: bool, **estimator):
    return parse_recipe(
        {
            "num_inference_steps": 4,
            "rewards": {"noise": 1},
            "prompts_per_iteration": 3,
            "group_size": 4,
            "seed": 7,
            "estimator": {"antithetic": antithetic, **estimator},
        }
    )


def test_by_default_a_trajectory_has_numpy_s_draws():
    drawn, plain = draws_of(recipe(False), 5, 2, 4), generator(7, DRAWS, 5, 2)
    assert [drawn.beta(2, 3) for _ in range(4)] == [plain.beta(2, 3) for _ in range(4)]


def test_neighbours_in_a_group_are_mirror_images():
    """Of three groups in turns, 0 and 3 are of one, and so are 6 and 9."""
    ratios = np.array([draws_of(recipe(True), 5, index, 4).beta(2, 3) for index in range(12)])
    below = beta.cdf(ratios, 2, 3).reshape(4, 3)
    assert below[0] + below[1] == pytest.approx(1)
    assert below[2] + below[3] == pytest.approx(1)
    assert len(set(ratios.round(6))) == 12


def test_each_draws_from_the_beta_that_it_is_given():
    """Also where the two have gone different ways, and their Betas differ."""
    for mirrored in (False, True):
        draws = InverseDraws(np.random.default_rng(0), mirrored)
        found = np.array([draws.beta(5, 2) for _ in range(4000)])
        assert found.mean() == pytest.approx(5 / 7, abs=0.01)
        assert found.std() == pytest.approx(beta(5, 2).std(), rel=0.05)


def test_mirrored_draws_of_one_beta_vary_less_in_their_mean():
    pairs = []
    for seed in range(500):
        one, other = (InverseDraws(np.random.default_rng(seed), m) for m in (False, True))
        pairs.append((one.beta(2, 4) + other.beta(2, 4)) / 2)
    assert np.std(pairs) < 0.3 * beta(2, 4).std() / 2**0.5


@pytest.mark.parametrize("mirrored", [False, True])
def test_correlated_decisions_move_together_and_each_has_its_beta(mirrored):
    trajectories = []
    for seed in range(2000):
        draws = InverseDraws(np.random.default_rng(seed), mirrored, correlation=0.8)
        trajectories.append([draws.beta(2, 3), draws.beta(5, 2)])
    first, second = np.array(trajectories).T
    for found, own in ((first, beta(2, 3)), (second, beta(5, 2))):
        assert found.mean() == pytest.approx(own.mean(), abs=0.01)
        assert found.std() == pytest.approx(own.std(), rel=0.05)
    numbers = norm.ppf(beta(2, 3).cdf(first)), norm.ppf(beta(5, 2).cdf(second))
    assert np.corrcoef(numbers)[0, 1] == pytest.approx(0.8, abs=0.03)


def test_each_action_is_correlated_with_itself():
    numbers = []
    for seed in range(2000):
        draws = InverseDraws(np.random.default_rng(seed), correlation=0.9, actions=2)
        numbers.append(norm.ppf(beta.cdf([draws.beta(2, 3) for _ in range(4)], 2, 3)))
    found = np.corrcoef(np.array(numbers).T)
    assert (found[0, 2], found[1, 3]) == pytest.approx((0.9, 0.9), abs=0.02)
    assert (found[0, 1], found[0, 3]) == pytest.approx((0, 0), abs=0.08)


def test_correlated_draws_are_mirrored_too():
    ratios = np.array([
        [draws.beta(2, 3) for _ in range(3)]
        for draws in (draws_of(recipe(True, correlation=0.5), 5, index, 4) for index in (0, 3))
    ])  # fmt: skip
    assert beta.cdf(ratios, 2, 3).sum(0) == pytest.approx(np.ones(3))
