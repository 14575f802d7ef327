"""What a policy does on prompts and noise that no training sees, beside the synchronous sampler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import TypedDict

from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, Stopwatch
from asyncdiff_cli.engine.drawing.panel import LABEL, make_panel
from asyncdiff_cli.engine.drawing.provenance import PanelProvenance, Provenance
from asyncdiff_cli.engine.drawing.seeds import EVALUATION, noise_seed
from asyncdiff_cli.engine.policies.base import Policy
from asyncdiff_cli.engine.rewards import COMPOSITE, GUARD
from asyncdiff_cli.engine.rewards.composite import relative_composite
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.sampling.sample import SampleResult
from asyncdiff_cli.engine.statistics import all_paired
from asyncdiff_cli.engine.text import shortened
from asyncdiff_cli.engine.training.rows import PairedMetric


class HeldOutRecord(TypedDict):
    """What a policy did on a held-out prompt."""

    place: int
    scores: dict[str, float]
    """The scores by reward, and the guard's."""
    deviations: list[float]
    """D before γ, [K − 1]."""


@dataclass(frozen=True)
class HeldOut:
    """Fixed prompts, each with its own fixed noise.

    Attributes:
        prompts: the prompts.
        seeds: of their noise.
        steps: K.
        scorers: the rewards with their weights.
        guard: scores residual noise where the rewards do not.
    """

    canvas: Canvas
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    scorers: RewardGroup
    guard: RewardGroup

    @classmethod
    def make(
        cls, canvas: Canvas, prompts: Sequence[str], seed: int, steps: int, scorers: RewardGroup
    ) -> HeldOut:
        """The n-th prompt's noise is a function of the seed and n."""
        seeds = tuple(noise_seed(seed, EVALUATION, n) for n in range(len(prompts)))
        guard = RewardGroup({GUARD: 1.0}, device="cpu", keep=scorers.keep)
        return cls(canvas, tuple(prompts), seeds, steps, scorers, guard)

    def evaluate(
        self,
        policy: Policy,
        places: Sequence[int],
        batch_size: BatchSize,
        clock: Stopwatch,
        gamma: float = 1.0,
    ) -> list[HeldOutRecord]:
        """Draw and score some of the prompts, by their places."""
        records: list[HeldOutRecord] = []
        for chunk, images, result in self.draw(policy, places, batch_size, clock, gamma):
            scores = self.score(images, [self.prompts[i] for i in chunk], clock)
            for n, place in enumerate(chunk):
                records.append(
                    {
                        "place": place,
                        "scores": {name: float(s[n]) for name, s in scores.items()},
                        "deviations": result.deviations[n].tolist(),
                    }
                )
        return records

    def draw(
        self,
        policy: Policy,
        places: Sequence[int],
        batch_size: BatchSize,
        clock: Stopwatch,
        gamma: float = 1.0,
    ) -> Iterator[tuple[Sequence[int], list[Image.Image], SampleResult]]:
        """The images of some places, batch by batch, in smaller ones if they do not fit."""
        done = 0
        while done < len(places):
            chunk = places[done : done + batch_size.value]
            prompts = [self.prompts[i] for i in chunk]
            text = self.canvas.encode(prompts)
            conditions, seeds = [text[p] for p in prompts], [self.seeds[i] for i in chunk]
            drawn = self.canvas.draw_if_it_fits(
                conditions, seeds, policy, self.steps, clock, batch_size, gamma
            )
            if drawn is not None:
                yield chunk, *drawn
                done += len(chunk)

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], clock: Stopwatch
    ) -> dict[str, Tensor]:
        """The rewards' scores, and the guard's."""
        with clock("rewards"):
            scores = self.scorers.score(images, prompts)
            if GUARD not in scores:
                scores |= self.guard.score(images, prompts)
        return scores

    def sheet(
        self,
        policies: Mapping[str, Policy],
        count: int,
        batch_size: BatchSize,
        clock: Stopwatch,
    ) -> tuple[Image.Image, PanelProvenance]:
        """The first few prompts, a row each, with a column per policy."""
        places = range(min(count, len(self.prompts)))
        prompts, seeds = self.prompts[: len(places)], self.seeds[: len(places)]
        columns: list[list[Image.Image]] = [[] for _ in policies]
        records: list[list[Provenance]] = [[] for _ in policies]
        for column, record, policy in zip(columns, records, policies.values(), strict=True):
            for chunk, images, result in self.draw(policy, places, batch_size, clock):
                column += images
                texts, noises = [prompts[i] for i in chunk], [seeds[i] for i in chunk]
                record += self.canvas.describe(result, texts, noises, policy, self.steps)
        labels, sides = tuple(policies), tuple(shortened(prompt, LABEL) for prompt in prompts)
        panel = make_panel(list(zip(*columns, strict=True)), labels, sides, "")
        cells = tuple(zip(*records, strict=True))
        return panel, PanelProvenance(cells=cells, columns=labels, rows=sides)


def scores_by_reward(records: Sequence[HeldOutRecord]) -> dict[str, Tensor]:
    """The scores of records that cover all prompts, [n] each in the order of the prompts."""
    ordered = sorted(records, key=lambda record: record["place"])
    return {
        name: torch.tensor([record["scores"][name] for record in ordered])
        for name in ordered[0]["scores"]
    }


def compare(
    scores: Mapping[str, Tensor], baseline: Mapping[str, Tensor], weights: Mapping[str, float]
) -> dict[str, PairedMetric]:
    """Each metric and the composite beside the baseline's: means, paired differences, intervals."""
    pairs = {name: (values, baseline[name]) for name, values in scores.items()}
    relative = relative_composite(scores, baseline, weights)
    pairs[COMPOSITE] = relative, relative_composite(baseline, baseline, weights)
    differences = all_paired(list(pairs.values()))
    return {
        name: {
            "mean": paired.mean,
            "difference": paired.difference,
            "low": paired.low,
            "high": paired.high,
            "n": paired.n,
        }
        for name, paired in zip(pairs, differences, strict=True)
    }
