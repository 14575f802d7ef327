"""The whole of it: each K is searched, tuned, measured and compared, and goes on after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import measure_sets
from asyncdiff_cli.engine.rewards import COMPOSITE
from benchmarks.evidence.bench import Bench, Drawn
from benchmarks.evidence.comparison import Measured, SideBySide
from benchmarks.evidence.means import mean_policies
from benchmarks.evidence.plan import Plan, Prompts
from benchmarks.evidence.rows import MORE_STEPS, SYNCHRONOUS, Schedules
from benchmarks.evidence.schedules import find_schedules
from benchmarks.evidence.tuning import Chosen, Tuner, composites


@dataclass(frozen=True)
class Runner:
    """A plan that is carried out in a directory.

    Attributes:
        on_line: told what was chosen of each row.
    """

    plan: Plan
    bench: Bench
    out: Path
    on_line: Callable[[str], None] = lambda _: None

    def run(self) -> Iterator[dict[str, Any]]:
        """The report of each K, as JSON values.

        Raises:
            InputError, AsyncDiffError: as `Bench.draw` and `find_schedules`.
        """
        tuning, held_out = self.plan.chosen_on, self.plan.held_out
        for steps in self.plan.steps:
            schedules = find_schedules(self.plan, steps, self.out / "schedules")
            means = mean_policies(self.plan, self.bench, steps, self.out / "schedules")
            schedules = replace(schedules, means=means)
            place = self.out / "rows" / str(steps)
            chosen = self._choose(steps, schedules, place, tuning)
            yield {**self._compare(steps, chosen, place, held_out), **self._cost(steps, place)}

    def _choose(
        self, steps: int, schedules: Schedules, place: Path, prompts: Prompts
    ) -> list[Chosen]:
        """What of each row is measured, and the steps that match the best of them."""
        found = self.plan.rows(steps, schedules, self.bench.shifts)
        first, own = found[0], found[0].candidates
        drawn = self.bench.draw(place / first.slug, own, prompts, len(prompts.order))
        tuner = Tuner(self.bench, place, self.plan.weights, prompts, drawn[own[0]])
        chosen = []
        for row in found:
            chosen.append(tuner.choose(row))
            self._tell(steps, chosen[-1])
        if self.plan.only is None or MORE_STEPS in self.plan.only:
            chosen.append(tuner.match(steps, max(choice.composite for choice in chosen)))
            self._tell(steps, chosen[-1])
        return chosen

    def _tell(self, steps: int, choice: Chosen) -> None:
        said, own = choice.candidate.said, choice.candidate.steps
        self.on_line(
            f"K = {steps}, {choice.row.name}: {said}, {own} steps, {choice.composite:+.4f}"
        )

    def _compare(
        self, steps: int, chosen: list[Chosen], place: Path, prompts: Prompts
    ) -> dict[str, Any]:
        drawn = {}
        for choice in chosen:
            own, name = choice.candidate, choice.row.name
            count = len(prompts.order)
            drawn[name] = self.bench.draw(place / choice.row.slug, [own], prompts, count)[own]
        scores, notes = score(self.bench, drawn, SYNCHRONOUS, self.plan.weights)
        rows = [Measured(c, drawn[c.row.name], scores[c.row.name]) for c in chosen]
        named = prompts.texts.categories
        categories = [named[index] for index in prompts.order] if named else []
        compared = SideBySide(steps, self.bench.branches, rows, categories)
        return {**compared.report(), "notes": list(notes)}

    def _cost(self, steps: int, place: Path) -> dict[str, Any]:
        """What was drawn, all runs together, and the schedules' searches, at most."""
        drawn = {"tuning": Tally(), "held-out": Tally()}
        for settings in sorted(place.rglob("settings.json")):
            part = "tuning" if settings.parent.name.startswith("tuning") else "held-out"
            drawn[part] = drawn[part].plus(Store(settings.parent), self.bench.branches)
        tallies = {name: vars(tally) for name, tally in drawn.items()}
        return {
            "cost": {"schedules": {"calls": self.plan.cost(steps)["calls_schedules"]}, **tallies}
        }


def score(
    bench: Bench, drawn: Mapping[str, Drawn], baseline: str, weights: Mapping[str, float]
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """The composite, rewards and set metrics of each row's pictures, [n], and notes on the last.

    Args:
        drawn: by row.
        baseline: the row in whose units the composite is.
        weights: of the rewards in it.
    """
    store = bench.evaluation.store
    rewards = {
        name: {reward: own.scores(reward) for reward in store.rewards}
        for name, own in drawn.items()
    }
    scores = {
        name: {COMPOSITE: composites(own, rewards[baseline], weights).numpy(), **own}
        for name, own in rewards.items()
    }
    parts = {name: own.rows for name, own in drawn.items()}
    return scores, measure_sets(store, store.set_metrics, parts, scores)


@dataclass(frozen=True)
class Tally:
    """Pictures, the denoiser calls that they count as, and seconds to draw and decode them."""

    pictures: int = 0
    calls: int = 0
    seconds: float = 0.0

    def plus(self, store: Store, branches: int) -> Tally:
        """The sum with the rows of a store."""
        rows = store.read(["seconds", "cond_sigmas"])
        evaluations = sum(map(len, rows["cond_sigmas"].to_pylist()))
        return Tally(
            self.pictures + len(rows),
            self.calls + branches * evaluations,
            self.seconds + float(np.sum(rows["seconds"].to_numpy())),
        )


def describe(plan: Plan, bench: Bench) -> dict[str, Any]:
    """What the reports of all K share, as JSON values."""
    evaluation, weights = bench.evaluation, plan.weights
    store, chosen_on, held_out = evaluation.store, plan.chosen_on, plan.held_out
    measured = [*store.rewards, *store.set_metrics]
    return {
        "backbone": store.settings["backbone"],
        "fingerprint": store.settings["fingerprint"],
        "guidance_scale": store.settings["guidance_scale"],
        "size": store.settings["size"],
        "branches": bench.branches,
        "dataset": held_out.texts.name,
        "prompts": len(held_out.order),
        "tuning_prompts": len(chosen_on.order),
        "trained": weights,
        "held_out": [name for name in measured if name not in weights],
        "modules": {name: module.place for name, module in plan.modules.items()},
        "distilled": plan.distilled,
        "options": evaluation.options,
    }
