"""How the ratios of a trajectory are drawn from the module's Beta: each by numbers of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from asyncdiff_cli.engine.drawing.seeds import DRAWS, generator
from asyncdiff_cli.engine.training.recipe import Recipe


@dataclass(frozen=True)
class InverseDraws:
    """Draws by the inverse of the distribution function, of u or of 1 − u.

    Two trajectories with equal generators, one of which is mirrored, are antithetic (Hammersley and
    Morton, 1956): where one draws far above the median, the other draws as far below, and each
    draws from its own Beta.
    """

    uniform: np.random.Generator
    mirrored: bool

    def beta(self, a: float, b: float) -> float:
        """A ratio in [0, 1], as numpy's generator has it."""
        u = self.uniform.random()
        return float(betaincinv(a, b, 1 - u if self.mirrored else u))


def draws_of(recipe: Recipe, iteration: int, index: int) -> np.random.Generator | InverseDraws:
    """What the trajectory of an index draws its ratios by.

    Antithetic are neighbours in a group: the members 0 and 1, 2 and 3, and so on.
    """
    if not recipe.estimator.antithetic:
        return generator(recipe.seed, DRAWS, iteration, index)
    groups = recipe.prompts_per_iteration
    member, group = divmod(index, groups)
    pair, mirrored = divmod(member, 2)
    uniform = generator(recipe.seed, DRAWS, iteration, pair * groups + group)
    return InverseDraws(uniform, bool(mirrored))
