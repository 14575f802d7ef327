"""What a choice of the policy by the prompt could add, before any module is trained to make it.

    asyncdiff eval --policies baseline,fixed:0.25,fixed:0.75,fixed:1 --num-images 6 --out DIR
    python -m benchmarks.choice DIR --rewards mini_clip,mini_quality

A policy gains more on some pictures than on others. How much of that is the prompt's, and how much
the noise's, shows in several noises of each prompt. Chosen is, for each prompt, what is best on its
other noises, and judged on the one that is left out, in turns; beside it is the one policy that is
best on those other noises of all prompts. A module that knows more of a prompt can gain more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from asyncdiff_cli import render
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.cells import signed
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import summarize
from asyncdiff_cli.engine.rewards import parse_names
from asyncdiff_cli.engine.rewards.composite import relative_composite
from asyncdiff_cli.engine.statistics import Difference, paired
from benchmarks import options

EXTREMES = 6
"""Prompts that are shown from either end."""


@dataclass(frozen=True)
class Gain:
    """What a policy gains over synchronous sampling, in standard deviations of its pictures.

    Attributes:
        between_prompts: the standard deviation of what all noises of a prompt share.
        within_prompts: the one between the noises of a prompt.
    """

    mean: Difference
    between_prompts: float
    within_prompts: float

    @classmethod
    def of(cls, gains: np.ndarray) -> Gain:
        """The parts of gains [prompts, noises]; the means of prompts vary by their noises too."""
        within = gains.var(1, ddof=1).mean()
        between = gains.mean(1).var(ddof=1) - within / gains.shape[1]
        over = paired(gains.mean(1), np.zeros(len(gains)))
        return cls(over, max(float(between), 0.0) ** 0.5, float(within**0.5))


@dataclass(frozen=True)
class Choice:
    """All gains of a store, and what choosing adds.

    Attributes:
        constant: what the policy that is best for all prompts gains, chosen on other noises.
        added: what choosing for each prompt adds to that, likewise.
        most, least: the prompts to which the last policy gives most and least, with that.
    """

    gains: Mapping[str, Gain]
    constant: Difference
    added: Difference
    most: Mapping[str, float]
    least: Mapping[str, float]


def read(path: Path, rewards: Sequence[str]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The prompts, and the composite's gain of each policy on each noise, [prompts, noises].

    Raises:
        InputError: for a store that lacks a reward, with several numbers of steps, with prompts
            that some policy has not drawn, or with one noise of each.
    """
    store = Store(path)
    if missing := [name for name in rewards if name not in store.rewards]:
        raise InputError(f"{path} has no {missing[0]}: it has {', '.join(store.rewards)}")
    summary = summarize(store, intervals=False)
    if len({result.setting.steps for result in summary.results}) > 1 or summary.partial:
        raise InputError(
            f"{path} has several numbers of steps, or prompts that not all policies have drawn:"
            " evaluate at one number of steps, to the end"
        )
    baseline, *others = summary.results
    if len(next(iter(baseline.scores.values()))) == summary.prompts:
        raise InputError(f"{path} has one noise of each prompt: draw several, with --num-images 6")
    scores = [
        {name: torch.from_numpy(own.scores[name].copy()) for name in rewards}
        for own in summary.results
    ]
    weights = dict.fromkeys(rewards, 1.0)
    first, *rest = (relative_composite(own, scores[0], weights) for own in scores)
    gains = [(own - first).reshape(summary.prompts, -1).numpy() for own in rest]
    rows = store.read(["prompt_id", "prompt"])
    texts = dict(zip(rows["prompt_id"].to_pylist(), rows["prompt"].to_pylist(), strict=True))
    prompts = [texts[number] for number in sorted(texts)]
    return prompts, {o.setting.label: own for o, own in zip(others, gains, strict=True)}


def left_out(gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one choice for all prompts gains, and one for each, judged on the noise left out.

    Args:
        gains: [policies, prompts, noises], with a policy that gains nothing among them.

    Returns:
        The mean over the noises that are left out in turns, [prompts] each.
    """
    constant, chosen = [], []
    for noise in range(gains.shape[2]):
        others = np.delete(gains, noise, axis=2).mean(2)
        constant.append(gains[others.mean(1).argmax(), :, noise])
        best = others.argmax(0)
        chosen.append(np.take_along_axis(gains[..., noise], best[None], 0)[0])
    return np.mean(constant, 0), np.mean(chosen, 0)


def measure(prompts: Sequence[str], gains: Mapping[str, np.ndarray]) -> Choice:
    """Tell gains [prompts, noises] of policies apart, beside what is left synchronous."""
    stacked = np.stack([np.zeros_like(next(iter(gains.values()))), *gains.values()])
    constant, chosen = left_out(stacked)
    last = stacked[-1].mean(1)
    ranked = [(prompts[place], float(last[place])) for place in np.argsort(-last)]
    return Choice(
        {name: Gain.of(own) for name, own in gains.items()},
        paired(constant, np.zeros(len(constant))),
        paired(chosen, constant),
        dict(ranked[:EXTREMES]),
        dict(ranked[-EXTREMES:]),
    )


def _said(own: Difference) -> str:
    return f"{signed(own.difference, 3)} [{signed(own.low, 3)}, {signed(own.high, 3)}]"


def show(choice: Choice) -> None:
    """Print the gains, what choosing adds, and the prompts at either end."""
    rows = [
        [name, _said(gain.mean), f"{gain.between_prompts:.3f}", f"{gain.within_prompts:.3f}"]
        for name, gain in choice.gains.items()
    ]
    render.table(["policy", "gain", "SD between prompts", "SD within a prompt"], rows)
    render.line(f"the best policy for all prompts: {_said(choice.constant)}")
    render.line(f"the best for each prompt adds:   {_said(choice.added)}")
    for name, ends in (("most", choice.most), ("least", choice.least)):
        said = "; ".join(f"{prompt} ({signed(gain, 2)})" for prompt, gain in ends.items())
        render.line(f"{[*choice.gains][-1]} gives {name} to: {said}")


def main(
    store: Annotated[Path, typer.Argument(metavar="DIR", help="An evaluation.")],
    rewards: Annotated[str, typer.Option(help="Comma-separated, weighed alike.")],
    json: options.Json = False,
) -> None:
    """Tell what a choice by the prompt could add, out of several noises of each prompt."""
    with options.errors_told():
        choice = measure(*read(store, parse_names(rewards)))
    if json:
        render.as_json(asdict(choice))
    else:
        show(choice)


if __name__ == "__main__":
    typer.run(main)
