"""What fixed and learned deviations are worth, paired against the synchronous sampler.

    python -m benchmarks.policies [--learned DIR] [--lifted DIR] [--prompts 640] [--json]

Every policy draws the same held-out prompts from the same noise. They are validation prompts which
trainings never evaluate on; the best fixed deviation is chosen on training prompts. Printed are
means, and paired differences to the synchronous sampler with 95 % bootstrap intervals; "composite"
is the recipe's weighted mean of z-scores, in standard deviations of the synchronous images.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from asyncdiff_cli import render
from asyncdiff_cli.engine import (
    FixedDeviation,
    LearnedDeviation,
    Policy,
    Synchronous,
    load_backbone,
)
from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, Stopwatch
from asyncdiff_cli.engine.prompts.load import load_prompts
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.rewards import GUARD
from asyncdiff_cli.engine.rewards.composite import relative_composite
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.statistics import paired
from asyncdiff_cli.engine.training.held_out import HeldOut, scores_by_reward
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from benchmarks import options

GRID = (-0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
"""Fixed deviations to choose from, besides 0."""
SYNCHRONOUS, FIXED = "synchronous", "best fixed"


def unseen(recipe: Recipe, texts: PromptSet, count: int) -> list[int]:
    """Places of validation prompts behind those that the training evaluates on, at most `count`."""
    seen = recipe.evaluation.prompts
    return texts.order(min(seen + count, len(texts)), recipe.evaluation.seed)[seen:]


def held_out(recipe: Recipe, canvas: Canvas, scorers: RewardGroup, count: int) -> HeldOut:
    """Prompts that the training has not looked at."""
    texts = load_prompts(recipe.prompts, "validation")
    chosen = [texts.texts[place] for place in unseen(recipe, texts, count)]
    seed, steps = recipe.evaluation.seed + 1, recipe.num_inference_steps
    return HeldOut.make(canvas, chosen, seed, steps, scorers)


def chosen_among(recipe: Recipe, canvas: Canvas, scorers: RewardGroup, count: int) -> HeldOut:
    """Training prompts, to choose the fixed deviation on."""
    texts = load_prompts(recipe.prompts, "train").draw(count, recipe.evaluation.seed)
    steps, seed = recipe.num_inference_steps, recipe.evaluation.seed + 2
    return HeldOut.make(canvas, texts, seed, steps, scorers)


def run(
    policies: Mapping[str, Policy], prompts: HeldOut, batch: int
) -> dict[str, tuple[dict[str, Tensor], Tensor]]:
    """Scores by reward [n], and mean deviations [K − 1], of each policy."""
    found = {}
    console = Console(stderr=True)
    clock, size = Stopwatch(torch.device("cpu")), BatchSize(batch)
    for name in track(policies, "policies", console=console, disable=not console.is_terminal):
        rows = prompts.evaluate(policies[name], range(len(prompts.prompts)), size, clock)
        mean = torch.tensor([row["deviations"] for row in rows]).mean(0)
        found[name] = scores_by_reward(rows), mean
    return found


def best_fixed(prompts: HeldOut, batch: int) -> tuple[float, dict[str, float]]:
    """The deviation with the best composite, and the composite of each."""
    policies = {"0": Synchronous(), **{f"{d:g}": FixedDeviation(d) for d in GRID}}
    found = run(policies, prompts, batch)
    baseline = found["0"][0]
    composites = {
        name: float(relative_composite(scores, baseline, prompts.scorers.weights).mean())
        for name, (scores, _) in found.items()
    }
    return float(max(composites, key=lambda name: composites[name])), composites


def measure(
    policies: Mapping[str, Policy], prompts: HeldOut, batch: int
) -> dict[str, dict[str, Any]]:
    """Measure each policy by each metric, beside the synchronous and the best fixed one."""
    found = run(policies, prompts, batch)
    weights = prompts.scorers.weights
    scores = {name: dict(own) for name, (own, _) in found.items()}
    baseline = scores[SYNCHRONOUS]
    for own in scores.values():
        composite = relative_composite(own, baseline, weights)
        own["composite"] = composite
    table: dict[str, dict[str, Any]] = {}
    for name, own in scores.items():
        table[name] = {
            "deviation": found[name][1].tolist(),
            "metrics": {m: vars(paired(s, scores[SYNCHRONOUS][m])) for m, s in own.items()},
            "beside_fixed": vars(paired(own["composite"], scores[FIXED]["composite"])),
        }
    return table


def main(
    recipe: Annotated[str, typer.Option(help="Whose steps, rewards and prompts.")] = "mini",
    learned: Annotated[Path | None, typer.Option(help="A module.")] = None,
    lifted: Annotated[Path | None, typer.Option(help="One trained with the lifted bound.")] = None,
    prompts: Annotated[int, typer.Option(min=2, help="Held-out prompts.")] = 640,
    selection: Annotated[int, typer.Option(min=2, help="Prompts to choose D on.")] = 128,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    json: options.Json = False,
) -> None:
    """Compare the learned policies with the synchronous sampler and the best fixed deviation."""
    render.quiet_libraries()
    settings = load_recipe(recipe)
    canvas = Canvas(load_backbone(settings.backbone), settings.guidance_scale, settings.size)
    scorers = RewardGroup({**settings.rewards})
    fixed, composites = best_fixed(chosen_among(settings, canvas, scorers, selection), batch)
    policies: dict[str, Policy] = {SYNCHRONOUS: Synchronous(), FIXED: FixedDeviation(fixed)}
    for name, module in (("learned", learned), ("learned, lifted", lifted)):
        if module is not None:
            policies[name] = LearnedDeviation.load(module)
    test = held_out(settings, canvas, scorers, prompts)
    report = {
        "recipe": recipe,
        "steps": settings.num_inference_steps,
        "prompts": len(test.prompts),
        "rewards": scorers.weights,
        "fixed": fixed,
        "fixed_composites": composites,
        "policies": measure(policies, test, batch),
    }
    print(json_module.dumps(report)) if json else _print(report)


def _print(report: Mapping[str, Any]) -> None:
    console = Console()
    console.print(
        f"{report['prompts']} prompts, {report['steps']} steps; best fixed D = {report['fixed']:g}"
        f" of {report['fixed_composites']}"
    )
    table = Table()
    metrics = ["composite", *report["rewards"], *({GUARD} - report["rewards"].keys())]
    for column in ("policy", "mean D", *metrics, "composite − best fixed"):
        table.add_column(column)
    for name, row in report["policies"].items():
        deviation = sum(row["deviation"]) / len(row["deviation"])
        cells = [_cell(row["metrics"][m]) for m in metrics]
        table.add_row(name, f"{deviation:+.3f}", *cells, _cell(row["beside_fixed"]))
    console.print(table)


def _cell(found: Mapping[str, float]) -> str:
    return (
        f"{found['mean']:.4f} ({found['difference']:+.4f}"
        f" [{found['low']:+.4f}, {found['high']:+.4f}])"
    )


if __name__ == "__main__":
    typer.run(main)
