"""Antithetic draws: mirrored in pairs, each of its own Beta."""

import numpy as np
import pytest
from scipy.stats import beta

from asyncdiff_cli.engine.drawing.seeds import DRAWS, generator
from asyncdiff_cli.engine.training.draws import InverseDraws, draws_of
from asyncdiff_cli.engine.training.recipe_files import parse_recipe


def recipe(antithetic: bool):
    return parse_recipe(
        {
            "num_inference_steps": 4,
            "rewards": {"noise": 1},
            "prompts_per_iteration": 3,
            "group_size": 4,
            "seed": 7,
            "estimator": {"antithetic": antithetic},
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
