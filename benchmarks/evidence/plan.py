"""What is asked for, and what it costs before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from asyncdiff_cli.engine.backbones.registry import (
    BASELINE,
    BackboneEntry,
    branches,
    provisional_entry,
)
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.comparison import Comparison
from asyncdiff_cli.engine.evaluation.set_metrics import SHIPPED
from asyncdiff_cli.engine.evaluation.set_metrics.reference import default_reference
from asyncdiff_cli.engine.prompts.load import load_prompts
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.rewards.composite import parse_weights
from asyncdiff_cli.engine.schedules.search import Search
from asyncdiff_cli.engine.training.recipe import Recipe
from benchmarks.evidence.rows import (
    EULER,
    HEUN,
    MORE_STEPS,
    SOLVERS,
    Module,
    Row,
    Schedules,
    rows,
)

FIRST = 16
"""Prompts that all candidates of a row draw."""
AVERAGED = 64
"""Prompts that a module's mean decisions are taken over."""


@dataclass(frozen=True)
class Prompts:
    """Prompts that are drawn for one purpose.

    Attributes:
        name: of the folder.
        texts: the set.
        order: the places of those that are drawn.
        seed: of their noise.
    """

    name: str
    texts: PromptSet
    order: Sequence[int]
    seed: int


@dataclass(frozen=True)
class Plan:
    """What is to be compared, and on how many prompts.

    Attributes:
        recipe: whose model, guidance, size, prompts and rewards.
        steps: numbers of evaluations K.
        limit: held-out prompts, that everything is measured on.
        tuning: training prompts, that everything is chosen on.
        searched: training prompts that schedules without a reward are searched on.
        search: how thoroughly; None for no such schedule.
        modules: what chooses by the picture, by name.
        distilled: the module that a schedule is distilled from; None for none.
        rewards: what is measured beside the recipe's rewards; None for the backbone's usual ones.
        set_metrics: None for those whose reference is shipped.
        only: rows, beside synchronous; None for all.
    """

    recipe: Recipe
    steps: Sequence[int]
    limit: int = 512
    tuning: int = 128
    searched: int = 16
    search: Search | None = field(default_factory=Search)
    modules: Mapping[str, Module] = field(default_factory=dict)
    distilled: str | None = None
    rewards: Sequence[str] | None = None
    set_metrics: Sequence[str] | None = None
    reference: Path | None = None
    reward_paths: Mapping[str, Path] = field(default_factory=dict)
    batch_size: int | None = None
    only: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if few := [steps for steps in self.steps if steps < 2]:
            raise InputError(f"K is at least 2, for there to be a decision, not {few[0]}")
        if self.distilled is not None and self.distilled not in self.modules:
            raise InputError(
                f"{self.distilled} is none of the modules {', '.join(self.modules) or 'given'}:"
                " name it with --module NAME=PLACE"
            )
        if self.distilled is not None and self.modules[self.distilled].solver != EULER:
            raise InputError(
                f"{self.distilled} is not for {EULER}, whose schedule is distilled: name another"
                " with --distilled"
            )

    @property
    def entry(self) -> BackboneEntry:
        """What is known of the backbone without its files."""
        return provisional_entry(self.recipe.model().name)

    @property
    def weights(self) -> dict[str, float]:
        """The rewards that are trained and tuned for, with their weights in the composite."""
        return parse_weights(self.recipe.rewards)

    @cached_property
    def held_out(self) -> Prompts:
        """Validation prompts that no training of the recipe has looked at.

        Raises:
            InputError: if there are not so many.
        """
        texts = load_prompts(self.recipe.prompts, "validation")
        seen, seed = self.recipe.evaluation.prompts, self.recipe.evaluation.seed
        order = texts.order(min(seen + self.limit, len(texts)), seed)[seen:]
        if len(order) < self.limit:
            raise InputError(
                f"{texts.name} has {len(texts):,} validation prompts, of which trainings look at"
                f" {seen}: ask for at most {len(order):,}"
            )
        return Prompts("held-out", texts, order, seed + 1)

    @cached_property
    def chosen_on(self) -> Prompts:
        """Training prompts."""
        texts = load_prompts(self.recipe.prompts, "train")
        seed = self.recipe.evaluation.seed
        return Prompts("tuning", texts, texts.order(self.tuning, seed), seed + 2)

    def comparison(self) -> Comparison:
        """The evaluation that every row is one of.

        Raises:
            InputError: as `Comparison`.
        """
        recipe, choice = self.recipe, self.recipe.model()
        usual = Comparison(choice, BASELINE, rewards=self.rewards).reward_names()
        sets = self.set_metrics
        if sets is None:
            sets = SHIPPED if _has_reference(choice.name) else ()
        paths = {name: Path(file) for name, file in recipe.reward_paths.items()}
        return Comparison(
            choice,
            BASELINE,
            dataset=recipe.prompts,
            limit=recipe.evaluation.prompts + self.limit,
            held_out=True,
            seed=recipe.evaluation.seed,
            guidance=recipe.guidance_scale,
            size=recipe.size,
            rewards=tuple(dict.fromkeys([*self.weights, *usual])),
            reward_paths={**paths, **self.reward_paths},
            reward_dtype=recipe.reward_dtype,
            offload_rewards=recipe.offload_rewards,
            batch_size=self.batch_size,
            kept_images=0,
            set_metrics=sets,
            reference=self.reference,
        )

    def rows(self, steps: int, schedules: Schedules, shifts: bool = True) -> list[Row]:
        """The rows of K that are asked for, synchronous first.

        Raises:
            InputError: for one that is unknown, or two of one name.
        """
        found = rows(steps, self.modules, schedules, shifts)
        names = [*(row.name for row in found), MORE_STEPS]
        if len({*names}) < len(names):
            raise InputError(
                f"two rows are called {max(names, key=names.count)}: name it otherwise"
            )
        if missing := [name for name in self.only or () if name not in names]:
            raise InputError(f"there is no row {missing[0]!r}: the rows are {'; '.join(names)}")
        first, *others = found
        return [first, *(row for row in others if self.only is None or row.name in self.only)]

    def cost(self, steps: int) -> dict[str, int]:
        """Pictures and denoiser calls of K at most, without those of more steps."""
        calls_each = branches(self.entry, self.recipe.guidance_scale)
        deviations = (0.0,) * (steps - 1)
        solvers = searched_solvers() if self.search else ()
        averaged = [name for name, module in self.modules.items() if module.solver != HEUN]
        schedules = Schedules(
            dict.fromkeys(solvers, deviations),
            deviations if self.distilled else None,
            dict.fromkeys(averaged, BASELINE),
        )
        own = self.rows(steps, schedules)
        each = [row.candidates[0].evaluations for row in own]
        tuned = [rung_pictures(len(row.candidates), self.tuning) for row in own]
        calls = {
            "schedules": self._searching(steps, len(solvers)) + AVERAGED * steps * len(averaged),
            "tuning": sum(n * count for n, count in zip(each, tuned, strict=True)),
            "measuring": sum(each) * self.limit,
        }
        return {
            "steps": steps,
            "rows": len(own),
            "pictures": sum(tuned) + self.limit * len(own),
            **{f"calls_{name}": calls_each * count for name, count in calls.items()},
        }

    def _searching(self, steps: int, solvers: int) -> int:
        """Evaluations of the searches without a reward, at most."""
        if self.search is None:
            return 0
        calibrating = solvers * self.search.calibrating(self.searched, 0, steps)
        distilling = self.search.distilling(self.searched, 0, steps) if self.distilled else 0
        return calibrating + distilling


def rungs(candidates: int, prompts: int) -> list[tuple[int, int]]:
    """How many prompts so many candidates are drawn on, and how many are left: half by half.

    This is successive halving (Jamieson and Talwalkar, 2016, arXiv 1502.07943): each rung draws
    twice as many prompts with half as many candidates, and the last one all prompts with two.
    """
    if candidates == 1:
        return [(prompts, 1)]
    found, count = [], min(FIRST, prompts)
    while candidates > 2 and count < prompts:
        found.append((count, candidates))
        candidates, count = max(2, math.ceil(candidates / 2)), min(2 * count, prompts)
    return [*found, (prompts, candidates)]


def rung_pictures(candidates: int, prompts: int) -> int:
    """Pictures that `rungs` takes: what a rung has drawn, the next one does not draw again."""
    counts = rungs(candidates, prompts)
    before = [0, *(count for count, _ in counts)]
    return sum((count - b) * kept for (count, kept), b in zip(counts, before, strict=False))


def searched_solvers() -> tuple[str, ...]:
    """The solvers that a schedule can be calibrated for: those of one evaluation a step."""
    return (EULER, *(solver for solver in SOLVERS if solver != HEUN))


def _has_reference(backbone: str) -> bool:
    try:
        default_reference(backbone, SHIPPED)
    except InputError:
        return False
    return True
