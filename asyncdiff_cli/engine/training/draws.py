"""How the ratios of a trajectory are drawn from the module's Beta: each by numbers of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, cycle, repeat

import numpy as np
from scipy.special import betaincinv, gammaincinv, ndtr

from asyncdiff_cli.engine.drawing.seeds import DRAWS, generator
from asyncdiff_cli.engine.policies.actions import SPACING, of_steps
from asyncdiff_cli.engine.policies.learned import BetaDraws
from asyncdiff_cli.engine.training.credit import Branching
from asyncdiff_cli.engine.training.recipe import Recipe


@dataclass(frozen=True)
class InverseDraws:
    """Draws by the inverse of the distribution function, of u or of 1 − u.

    Two trajectories with equal generators, one of which is mirrored, are antithetic (Hammersley and
    Morton, 1956): where one draws far above the median, the other draws as far below, and each
    draws from its own Beta.

    Args:
        correlation: of the normal numbers Φ⁻¹(u) of a trajectory's decisions, in [0, 1).
        actions: how many a decision has, drawn in turns; each is correlated with itself.
    """

    uniform: np.random.Generator
    mirrored: bool = False
    correlation: float = 0.0
    actions: int = 1

    def beta(self, a: float, b: float) -> float:
        """A ratio in [0, 1], as numpy's generator has it."""
        u = self._correlated() if self.correlation else self.uniform.random()
        return float(betaincinv(a, b, 1 - u if self.mirrored else u))

    def _correlated(self) -> float:
        shared, own = next(self._shared), self.uniform.standard_normal()
        return float(ndtr(self.correlation**0.5 * shared + (1 - self.correlation) ** 0.5 * own))

    @cached_property
    def _shared(self) -> Iterator[float]:
        """The normal number that an action has a part of at every decision, in turns."""
        return cycle(self.uniform.standard_normal(self.actions))

    def dirichlet(self, alpha: np.ndarray) -> np.ndarray:
        """Shares that sum to 1: of draws of Gamma distributions."""
        u = self.uniform.random(len(alpha))
        drawn = gammaincinv(alpha, 1 - u if self.mirrored else u)
        return drawn / drawn.sum()


@dataclass(frozen=True)
class BranchedDraws:
    """Draws by one generator each, which others may have too."""

    generators: Iterator[np.random.Generator]

    def beta(self, a: float, b: float) -> float:
        """A ratio in [0, 1], as numpy's generator has it."""
        return next(self.generators).beta(a, b)

    def dirichlet(self, alpha: np.ndarray) -> np.ndarray:
        """Shares that sum to 1, as numpy's generator has them."""
        return next(self.generators).dirichlet(alpha)


def draws_of(recipe: Recipe, iteration: int, index: int, steps: int) -> BetaDraws:
    """What the trajectory of an index draws its ratios by, in a run of K steps.

    Neighbours in a group belong together. Antithetic are the members 0 and 1, 2 and 3, and so on;
    of one prefix as many as there are branches.
    """
    groups = recipe.prompts_per_iteration
    member, group = divmod(index, groups)
    tree, decided = Branching.of(recipe, steps), len(of_steps(recipe.actions))
    correlation = recipe.estimator.correlation
    if not recipe.estimator.antithetic:
        own = generator(recipe.seed, DRAWS, iteration, index)
        if correlation:
            return InverseDraws(own, correlation=correlation, actions=decided)
        if tree.branches == 1:
            return own
        first = (member - member % tree.branches) * groups + group
        shared = generator(recipe.seed, DRAWS, iteration, first, tree.branches)
        shared_draws = tree.prefix * decided + (SPACING in recipe.actions)
        return BranchedDraws(chain(repeat(shared, shared_draws), repeat(own)))
    pair, mirrored = divmod(member, 2)
    uniform = generator(recipe.seed, DRAWS, iteration, pair * groups + group)
    return InverseDraws(uniform, bool(mirrored), correlation, decided)
