"""Rows side by side: paired intervals against synchronous sampling and the best static policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.evaluation.cells import has_best
from asyncdiff_cli.engine.evaluation.set_metrics import NAMES as SET_METRICS
from asyncdiff_cli.engine.rewards import COMPOSITE, GUARD
from asyncdiff_cli.engine.statistics import Difference, all_paired
from benchmarks.evidence.bench import Drawn
from benchmarks.evidence.rows import EULER, NEEDS, SYNCHRONOUS
from benchmarks.evidence.tuning import Chosen

Scores = Mapping[str, np.ndarray]
"""Each metric of each picture, [n]; of set metrics the terms whose mean they are."""
ADDS, TAKES, OPEN = "adds", "takes", "open"
"""What an interval says: it is above 0, below, or reaches across."""


@dataclass(frozen=True)
class Measured:
    """A row on the held-out prompts."""

    chosen: Chosen
    drawn: Drawn
    scores: Scores

    @property
    def name(self) -> str:
        """The row's."""
        return self.chosen.row.name


@dataclass(frozen=True)
class SideBySide:
    """The rows of K evaluations, synchronous sampling among them.

    Attributes:
        steps: K.
        branches: denoiser calls for each evaluation.
        categories: of each prompt; none for a set without.
    """

    steps: int
    branches: int
    rows: Sequence[Measured]
    categories: Sequence[str] = ()

    def __post_init__(self) -> None:
        first = self.rows[0].drawn.rows.select(["prompt_id", "seed"])
        for row in self.rows:
            if not row.drawn.rows.select(["prompt_id", "seed"]).equals(first):
                raise AsyncDiffError(f"{row.name} has other prompts or noise: give another --out")

    @property
    def synchronous(self) -> Measured:
        """Synchronous Euler of K steps."""
        return next(row for row in self.rows if row.name == SYNCHRONOUS)

    @property
    def equal(self) -> list[Measured]:
        """The rows of no more than K evaluations."""
        return [row for row in self.rows if row.drawn.evaluations <= self.steps]

    @property
    def static(self) -> Measured:
        """The best policy of Euler that does the same to all pictures."""
        return self._static_of(EULER)

    def _static_of(self, solver: str) -> Measured:
        """A solver's best static policy by the prompts it was chosen on; with no row, Euler's."""
        static = [row for row in self.rows if row.chosen.row.static]
        own = [row for row in static if row.chosen.candidate.solver == solver]
        return max(own, key=lambda row: row.chosen.composite) if own else self.static

    def report(self) -> dict[str, Any]:
        """All of it as JSON values, the rows by their composite."""
        everyone = np.ones(self.rows[0].drawn.rows.num_rows, bool)
        beside, marks = self._beside(everyone), self._marks()
        parts = {name: self._beside(of) for name, of in self._categories().items()}
        ordered = sorted(self.rows, key=lambda row: -float(row.scores[COMPOSITE].mean()))
        return {
            "steps": self.steps,
            "calls": self.steps * self.branches,
            "static": self.static.name,
            "rows": [
                {
                    **self._described(row),
                    "metrics": {
                        metric: {**values, "mark": marks[metric].get(row.name, "")}
                        for metric, values in beside[row.name].items()
                    },
                    "categories": {name: part[row.name] for name, part in parts.items()},
                }
                for row in ordered
            ],
            "choice": [self._choice(row) for row in ordered if row.chosen.row.module],
            "ladder": self._ladder(),
        }

    def _described(self, row: Measured) -> dict[str, Any]:
        """What a row is, and what it takes."""
        chosen, candidate, drawn = row.chosen, row.chosen.candidate, row.drawn
        calls = drawn.evaluations * self.branches
        return {
            "row": row.name,
            "needs": chosen.row.needs,
            **asdict(candidate),
            "said": candidate.said,
            "evaluations": drawn.evaluations,
            "calls": calls,
            "tuned_calls": chosen.evaluations * self.branches,
            "tuned_composite": chosen.composite,
            "at_end": chosen.at_end,
            "deviation": np.mean(drawn.rows["deviations"].to_pylist(), 0).tolist(),
            "seconds": float(np.mean(drawn.rows["seconds"].to_numpy())),
        }

    def _beside(self, of: np.ndarray) -> dict[str, dict[str, dict[str, Any]]]:
        """Each row's metrics of some pictures, [n] of booleans, beside both it is compared with.

        Of a part set metrics are left out: a reference has all categories.
        """
        metrics = [m for m in self.rows[0].scores if of.all() or m not in SET_METRICS]
        others = [self.synchronous, self.static]
        cells = [(row, metric) for row in self.rows for metric in metrics]
        first, second = (
            all_paired([(row.scores[m][of], other.scores[m][of]) for row, m in cells])
            for other in others
        )
        found: dict[str, dict[str, dict[str, Any]]] = {row.name: {} for row in self.rows}
        for (row, metric), own, static in zip(cells, first, second, strict=True):
            found[row.name][metric] = {**asdict(own), "static": interval_of(static)}
        return found

    def _categories(self) -> dict[str, np.ndarray]:
        """Which pictures are of each category."""
        names = np.array(self.categories)
        return {name: names == name for name in dict.fromkeys(sorted(self.categories))}

    def _marks(self) -> dict[str, dict[str, str]]:
        """The marks of each metric by row, among those of equal calls."""
        return {
            metric: marks({row.name: row.scores[metric] for row in self.equal}, metric)
            for metric in self.rows[0].scores
        }

    def _choice(self, row: Measured) -> dict[str, Any]:
        """What the choice per picture adds over its solver's best static policy, and where."""
        static = self._static_of(row.chosen.candidate.solver)
        categories = {n: self._over(row, static, of) for n, of in self._categories().items()}
        over = self._over(row, static)
        return {"row": row.name, "static": static.name, **over, "categories": categories}

    def _ladder(self) -> list[dict[str, Any]]:
        """The best row of each need, as the tuning prompts have it, beside those that need less.

        It is worth what it needs where it is better than synchronous sampling and each of them,
        with the whole interval.
        """
        less, use, steps = [self.synchronous], self.synchronous, []
        for need in NEEDS:
            of_need = [row for row in self.equal if row.chosen.row.needs == need]
            if not of_need:
                continue
            best = max(of_need, key=lambda row: row.chosen.composite)
            others = [row for row in less if row is not best]
            over = [{"row": row.name, **self._over(best, row)} for row in others]
            use = best if over and all(own["verdict"] == ADDS for own in over) else use
            steps.append({"needs": need, "row": best.name, "over": over, "use": use.name})
            less = [*others, best]
        return steps

    def _over(
        self, row: Measured, other: Measured, of: np.ndarray | slice = slice(None)
    ) -> dict[str, Any]:
        """By how much the composite differs, and what the interval says."""
        pair = row.scores[COMPOSITE][of], other.scores[COMPOSITE][of]
        return interval_of(all_paired([pair])[0])


def marks(scores: Scores, metric: str) -> dict[str, str]:
    """ "best" of a row that is better than every other, or else "tied" of those that may be best.

    Args:
        scores: the metric of each row's pictures.
    """
    if metric not in (COMPOSITE, GUARD) and not has_best(metric):
        return {}
    sign = -1.0 if metric in SET_METRICS else 1.0
    best = max(scores, key=lambda name: sign * float(scores[name].mean()))
    others = [name for name in scores if name != best]
    if not others:
        return {}
    gaps = all_paired([(sign * scores[best], sign * scores[name]) for name in others])
    tied = [name for name, gap in zip(others, gaps, strict=True) if gap.low <= 0]
    if len(tied) == len(others):
        return {}
    return {best: "best"} if not tied else dict.fromkeys([best, *tied], "tied")


def interval_of(found: Difference) -> dict[str, Any]:
    """The difference with its interval, and what that says; of one picture, nothing."""
    verdict = ADDS if found.low > 0 else TAKES if found.high < 0 else OPEN
    verdict = OPEN if found.n == 1 else verdict
    ends = {"difference": found.difference, "low": found.low, "high": found.high, "n": found.n}
    return {**ends, "verdict": verdict}
