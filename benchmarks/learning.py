"""How many denoiser calls the training takes to learn a schedule that is known.

    python -m benchmarks.learning [--seeds 10] [--only NAME …] [--json]

The world is that of `benchmarks.gaussian`, whose best static schedule and its error are known. Each
option of the estimator trains from the same seeds, with as many images an iteration and the same
learning rate. Printed are the calls until the module has 90 % of what the best schedule gains over
the synchronous sampler on held-out noise, the paired difference from mini's groups with its 95 %
bootstrap interval over the seeds, and the gain at the end. A seed that does not get there counts as
all calls. Held-out evaluations are not in the calls. The last row is no policy gradient: it is
what the gradient through sampler and reward gives, where these have one (as in LD3, arXiv
2405.15506).
"""

from __future__ import annotations

import json as json_module
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine import LearnedDeviation, Policy, ScheduledDeviation, Synchronous, desync
from asyncdiff_cli.engine.backbones.adapters import Guidance
from asyncdiff_cli.engine.drawing.canvas import BatchSize, Stopwatch
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.learned import observed
from asyncdiff_cli.engine.sampling.loop import denoising, integrate
from asyncdiff_cli.engine.statistics import all_paired
from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import parse_recipe
from asyncdiff_cli.engine.training.rollout import plan_iteration
from asyncdiff_cli.engine.training.trainer import Trainer
from benchmarks import options
from benchmarks.gaussian import SIDE, World

STEPS = 4
WORLD = World.of_images([0.25, 0.3, 0.4])
"""Spectra so steep that no constant deviation gets 90 % of what the best schedule gains."""
SHARE = 0.9
"""Share of that gain at which a module counts as trained."""
MINI = {
    "num_inference_steps": STEPS,
    "rewards": {"noise": 1},  # not computed: the world has its own
    "bound": 1.0,
    "prompts_per_iteration": 8,
    "group_size": 4,
    "noises_per_prompt": 1,
    "scale_rewards": "baseline",
    "mini_batch_size": 16,
    "rollout_batch_size": 64,
    "tpm": {"width": 32, "layers": 1, "heads": 2, "text_tokens": 1, "global_tokens": 1},
    "evaluation": {"every": 3, "prompts": 96, "patience": None},
    "checkpoint": {"every": 100_000, "keep": 1},
    "samples": {"every": 0},
}
"""The groups of mini's recipe, on a small module."""
PAPER = {
    "prompts_per_iteration": 2,
    "group_size": 16,
    "noises_per_prompt": None,
    "scale_rewards": "group",
}
BRANCHES = {"branches": 2}
BESIDE, PATHWISE = "mini's groups", "pathwise gradient"
OPTIONS: dict[str, dict[str, Any]] = {
    BESIDE: {},
    "the paper's groups": PAPER,
    "the paper's groups of one noise": PAPER | {"noises_per_prompt": 1},
    "leave-one-out baseline": {"estimator": {"baseline": "leave_one_out"}},
    "James-Stein baseline": {"estimator": {"baseline": "james_stein"}},
    "antithetic draws": {"estimator": {"antithetic": True}},
    "correlated draws, 0.5": {"estimator": {"correlation": 0.5}},
    "correlated draws, 0.8": {"estimator": {"correlation": 0.8}},
    "ratio normalisation": {"estimator": {"ratio_norm": True}},
    "credit by own gain": {"estimator": {"stepwise": 0}},
    "credit by half of later gains": {"estimator": {"stepwise": 0.5}},
    "credit by all later gains": {"estimator": {"stepwise": 1}},
    "two branches after a third": {"estimator": BRANCHES | {"branch_at": 0.33}},
    "two branches after two thirds": {"estimator": BRANCHES | {"branch_at": 0.67}},
    "two branches, credit by later gains": {"estimator": BRANCHES | {"stepwise": 1}},
    "start at spectral": {"start": "spectral"},
    "start at fixed:0.5": {"start": "fixed:0.5"},
    PATHWISE: {},
}
"""Settings upon those of `MINI`."""


def held_out_error(trainer: Trainer, policy: Policy) -> float:
    """The mean error of a policy on the held-out noise."""
    assert trainer.held_out is not None
    places = range(len(trainer.held_out.prompts))
    clock = Stopwatch(torch.device("cpu"))
    records = trainer.held_out.evaluate(policy, places, BatchSize(len(places)), clock)
    return -statistics.fmean(record["scores"]["noise"] for record in records)


def by_policy_gradient(trainer: Trainer) -> Iterator[tuple[int, float]]:
    """Train, and tell the calls of the rollouts before each evaluation, and the module's error."""
    field, calls, before = trainer.canvas.backbone.pipe.transformer, 0, 0
    for _, row in trainer.train():
        if "held_out" in row and row["iteration"]:
            yield calls, -row["held_out"]["noise"]["mean"]
        elif "held_out" in row:
            yield calls, held_out_error(trainer, LearnedDeviation(trainer.state.current))
        else:
            calls += field.evaluations - before
        before = field.evaluations


class PathwiseDeviation(LearnedDeviation):
    """Draws from the module's Beta through which gradients pass."""

    def __call__(self, state: StepState) -> torch.Tensor:
        ratio = grpo.beta(*self.tpm(observed(self.tpm, state))).rsample()[0].float()
        return desync.deviation_from_ratio(ratio, self.bound)


def by_pathwise_gradient(trainer: Trainer) -> Iterator[tuple[int, float]]:
    """Descend on the error itself, on the noise and in the mini-batches of the training."""
    recipe, state, canvas = trainer.recipe, trainer.state, trainer.canvas
    adapter, calls = canvas.backbone.adapter, 0
    torch.manual_seed(recipe.seed)
    for iteration in range(recipe.iterations):
        if iteration % recipe.evaluation.every == 0:
            yield calls, held_out_error(trainer, LearnedDeviation(state.tpm))
        plan = plan_iteration(recipe, trainer.prompts, iteration)
        for first in range(0, len(plan), recipe.mini_batch_size):
            part = plan[first : first + recipe.mini_batch_size]
            text = adapter.encode([t.prompt for t in part], None, {}, False, None)
            noise = [torch.Generator().manual_seed(t.noise) for t in part]
            latents = adapter.prepare_latents((len(part), SIDE, SIDE), torch.float32, noise, None)
            adapter.set_timesteps(STEPS, latents)
            with denoising(adapter) as field:
                velocity = field(text, Guidance(1, 1), SIDE, SIDE)
                scheduler, policy = canvas.backbone.pipe.scheduler, PathwiseDeviation(state.tpm)
                final, *_ = integrate(velocity, scheduler, latents, policy, 1.0, text)
            state.optimizer.zero_grad()
            scores = trainer.scorers.score(list(final), [t.prompt for t in part])
            (-scores["noise"].mean()).backward()
            torch.nn.utils.clip_grad_norm_(state.tpm.parameters(), recipe.max_grad_norm)
            state.optimizer.step()
            calls += STEPS * len(part)
    yield calls, held_out_error(trainer, LearnedDeviation(state.tpm))


def gains(name: str, recipe: Recipe) -> list[tuple[int, float]]:
    """Calls, and the share of the best schedule's gain after them, along a training."""
    best = ScheduledDeviation(WORLD.optimum(recipe.num_inference_steps).tolist())
    with tempfile.TemporaryDirectory() as directory:
        trainer = WORLD.trainer(recipe, Path(directory) / "run")
        synchronous, least = (held_out_error(trainer, p) for p in (Synchronous(), best))
        run = by_pathwise_gradient if name == PATHWISE else by_policy_gradient
        return [
            (calls, (synchronous - error) / (synchronous - least)) for calls, error in run(trainer)
        ]


def calls_to(curve: list[tuple[int, float]], share: float) -> float:
    """Calls until a share is reached, between two evaluations by the line; all if it never is."""
    before = 0, 0.0
    for calls, gain in curve:
        if gain >= share:
            rise = gain - before[1]
            return before[0] + (calls - before[0]) * (share - before[1]) / rise
        before = calls, gain
    return float(curve[-1][0])


def measured(names: list[str], seeds: int, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row an option, with what each seed gave."""
    console, beside = Console(stderr=True), None
    for name in track(names, "options", console=console, disable=not console.is_terminal):
        values = {**MINI, **settings, **OPTIONS[name]}
        curves = [gains(name, parse_recipe({**values, "seed": seed})) for seed in range(seeds)]
        calls = [calls_to(curve, SHARE) for curve in curves]
        beside = beside or calls
        yield {
            "option": name,
            "reached": sum(max(gain for _, gain in curve) >= SHARE for curve in curves),
            "start": statistics.fmean(curve[0][1] for curve in curves),
            "end": statistics.fmean(curve[-1][1] for curve in curves),
            "calls": calls,
            **asdict(all_paired([(calls, beside)])[0]),
        }


def main(
    seeds: Annotated[int, typer.Option(min=2)] = 10,
    iterations: Annotated[int, typer.Option(min=2)] = 24,
    learning_rate: Annotated[float, typer.Option(min=0)] = 3e-3,
    only: Annotated[list[str] | None, typer.Option(help="Options, beside mini's groups.")] = None,
    json: options.Json = False,
) -> None:
    """Compare options of the policy gradient's estimator where the optimum is known."""
    render.quiet_libraries()
    names = [name for name in OPTIONS if name == BESIDE or only is None or name in only]
    settings = {"iterations": iterations, "learning_rate": learning_rate}
    rows = list(measured(names, seeds, settings))
    report = {"seeds": seeds, **settings, "world": list(WORLD.spectra), "rows": rows}
    print(json_module.dumps(report)) if json else _print(report)


def _print(report: Mapping[str, Any]) -> None:
    table = Table("option", "calls to 90 %", "difference", "reached", "gain at first", "at the end")
    for row in report["rows"]:
        table.add_row(
            row["option"],
            f"{row['mean']:.0f}",
            f"{row['difference']:+.0f} [{row['low']:+.0f}, {row['high']:+.0f}]",
            f"{row['reached']} of {report['seeds']}",
            f"{row['start']:.2f}",
            f"{row['end']:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
