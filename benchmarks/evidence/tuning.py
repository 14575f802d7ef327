"""What of each row is measured: chosen on training prompts, by what the recipe trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asyncdiff_cli.engine.rewards.composite import relative_composite
from benchmarks.evidence.bench import Bench, Drawn
from benchmarks.evidence.plan import Prompts, rung_pictures, rungs
from benchmarks.evidence.rows import MORE_STEPS, NOTHING, Candidate, Row, more_steps

BOUNDED = ("fixed", "combined", "time-shift")
"""Policies whose deviations end at 1."""


@dataclass(frozen=True)
class Chosen:
    """A row with the candidate that is measured.

    Attributes:
        composite: its mean on the prompts that it was chosen on.
        evaluations: of the denoiser that choosing took, without guidance.
        at_end: whether it is the least or largest number that was tried, and one beyond it may be
            better.
    """

    row: Row
    candidate: Candidate
    composite: float
    evaluations: int
    at_end: bool = False


@dataclass(frozen=True)
class Tuner:
    """A choice among candidates, by the composite in units of synchronous sampling's scores.

    Attributes:
        out: the folder of the rows.
        weights: of the rewards that the recipe trains.
        prompts: those that are chosen on.
        baseline: what synchronous sampling drew of them.
    """

    bench: Bench
    out: Path
    weights: Mapping[str, float]
    prompts: Prompts
    baseline: Drawn

    def choose(self, row: Row) -> Chosen:
        """The best candidate of a row, by successive halving as of `rungs`."""
        kept: Sequence[Candidate] = row.candidates
        means: dict[Candidate, float] = {}
        for count, number in rungs(len(row.candidates), len(self.prompts.order)):
            kept = sorted(kept, key=lambda c: -means.get(c, 0.0))[:number]
            means = self._means(row, kept, count)
        best = max(kept, key=lambda c: means[c])
        pictures = rung_pictures(len(row.candidates), len(self.prompts.order))
        taken = pictures * best.evaluations if len(row.candidates) > 1 else 0
        return Chosen(row, best, means[best], taken, at_end(row, best))

    def match(self, steps: int, composite: float) -> Chosen:
        """Synchronous sampling with the fewest steps that reach a composite, or else the most."""
        row, means = Row(MORE_STEPS, NOTHING, more_steps(steps)), {}
        count = len(self.prompts.order)
        for candidate in row.candidates:
            means |= self._means(row, [candidate], count)
            if means[candidate] >= composite:
                break
        taken = count * sum(tried.evaluations for tried in means)
        return Chosen(row, candidate, means[candidate], taken)

    def _means(
        self, row: Row, candidates: Sequence[Candidate], count: int
    ) -> dict[Candidate, float]:
        """The mean composites on the first prompts."""
        drawn = self.bench.draw(self.out / row.slug, candidates, self.prompts, count)
        own = {name: self.baseline.scores(name)[:count] for name in self.weights}
        return {
            candidate: float(composites({n: d.scores(n) for n in own}, own, self.weights).mean())
            for candidate, d in drawn.items()
        }


def composites(
    scores: Mapping[str, object], baseline: Mapping[str, object], weights: Mapping[str, float]
) -> Tensor:
    """The composite of each picture in units of the baseline, as training has it, fp64 [n]."""
    own, other = (
        {name: torch.tensor(values[name]) for name in weights} for values in (scores, baseline)
    )
    return relative_composite(own, other, weights)


def at_end(row: Row, best: Candidate) -> bool:
    """Whether a number is the least or largest that its row tries, and no bound of its policy."""
    if len(row.candidates) == 1:
        return False
    tried = [found for c in row.candidates if (found := _numbers(c))]
    for own, values in zip(_numbers(best), zip(*tried, strict=True), strict=False):
        bound = abs(own) == 1 and best.policy.startswith(BOUNDED)
        if own in (min(values), max(values)) and not bound:
            return True
    return False


def _numbers(candidate: Candidate) -> tuple[float, ...]:
    """What is tried of a row: a shift, or the numbers of a policy that is no schedule."""
    if candidate.shift is not None:
        return (candidate.shift,)
    name, _, text = candidate.policy.partition(":")
    try:
        return () if name == "schedule" else tuple(map(float, text.split("/")))
    except ValueError:
        return ()
