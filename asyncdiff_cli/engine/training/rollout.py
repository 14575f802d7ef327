"""One iteration's images: who draws what from which noise, and the draws of the module on the way.

Every random number is a function of the recipe's seed, the iteration and the trajectory's index in
it. So it depends on neither the number of processes nor the batch size, and a run that goes on from
a checkpoint draws what an uninterrupted one draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, Stopwatch
from asyncdiff_cli.engine.drawing.seeds import NOISE, STEPS, generator, noise_seed
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.learned import SampledDeviation
from asyncdiff_cli.engine.policies.observation import Observation
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.sampling.sample import stacked
from asyncdiff_cli.engine.training.credit import Branching
from asyncdiff_cli.engine.training.draws import draws_of
from asyncdiff_cli.engine.training.recipe import Recipe


@dataclass(frozen=True)
class Trajectory:
    """One image of an iteration, by its index in it."""

    index: int
    group: int
    """Its group's number: a group shares a prompt and is compared within itself."""
    prompt: str
    noise: int
    """The seed of its initial noise."""


def plan_iteration(recipe: Recipe, prompts: PromptSet, iteration: int) -> list[Trajectory]:
    """All trajectories of an iteration, in which the groups take turns."""
    groups, noises = recipe.prompts_per_iteration, recipe.noises_per_prompt or recipe.group_size
    first, branches = iteration * groups, recipe.estimator.branches
    texts = [prompts.at(first + group, recipe.seed) for group in range(groups)]
    return [
        Trajectory(
            index=member * groups + group,
            group=group,
            prompt=texts[group],
            noise=noise_seed(recipe.seed, NOISE, iteration, group, member // branches % noises),
        )
        for member in range(recipe.group_size)
        for group in range(groups)
    ]


def dealt(everyone: Sequence[Trajectory], process: int, processes: int) -> list[Trajectory]:
    """A process's trajectories. Those of one prompt and noise are neighbours, so that they share a
    batch, and in it the first evaluation."""
    return sorted(everyone[process::processes], key=lambda t: (t.group, t.noise, t.index))


def group_indices(trajectories: Sequence[Trajectory]) -> Tensor:
    """The indices of each group's trajectories, [groups, size]."""
    count = 1 + max(trajectory.group for trajectory in trajectories)
    return torch.tensor(
        [[t.index for t in trajectories if t.group == group] for group in range(count)]
    )


def number_of_steps(recipe: Recipe, iteration: int) -> int:
    """K of an iteration: the recipe's, or one out of its range."""
    if recipe.step_range is None:
        return recipe.num_inference_steps
    low, high = recipe.step_range
    return int(generator(recipe.seed, STEPS, iteration).integers(low, high + 1))


@dataclass
class Rollout:
    """What this process drew in an iteration: its trajectories, and how the module decided."""

    trajectories: list[Trajectory]
    images: list[Image.Image]
    seen: Observation | None
    """[S, B, …]; None for a process without a trajectory."""
    ratios: Tensor
    """r* as drawn, fp32 [S, B]; of A actions [S·A, B], a decision's one after the other."""
    deviations: Tensor
    """D, fp32 [B, S] on the CPU."""
    previews: list[list[Image.Image]] = field(default_factory=list)
    """x̂0_0 … x̂0_{S−1} decoded, S times B images; empty unless decisions are credited by them."""
    scales: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """ω, fp32 [B, S] on the CPU; [B, 0] of a module that leaves velocities alone."""
    shares: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """Shares of the steps but the first as drawn, fp64 [B, K − 1]; [B, 0] of a module that leaves
    the grid alone."""
    sigmas: Tensor = field(default_factory=lambda: torch.zeros(0))
    """The scheduler's grid that these are of, [K + 1]."""


def roll_out(
    canvas: Canvas,
    tpm: TimestepPredictionModule,
    trajectories: Sequence[Trajectory],
    recipe: Recipe,
    iteration: int,
    batch_size: BatchSize,
    clock: Stopwatch,
) -> Rollout:
    """Draw trajectories with ratios sampled from the module.

    Raises:
        AsyncDiffError: for NaN or infinity in the latents, or if one image does not fit.
    """
    steps = number_of_steps(recipe, iteration)
    prefix = Branching.of(recipe, steps).prefix
    canvas = replace(canvas, share_first=canvas.share_first and 1 + prefix)
    with clock("denoiser"):
        text = canvas.encode([t.prompt for t in trajectories]) if trajectories else {}
    images: list[Image.Image] = []
    parts: list[SampledDeviation] = []
    deviations, previews = [], []
    while len(images) < len(trajectories):
        chunk = trajectories[len(images) : len(images) + batch_size.value]
        policy = SampledDeviation(tpm, [draws_of(recipe, iteration, t.index, steps) for t in chunk])
        look = Previews(canvas) if recipe.estimator.stepwise is not None else None
        conditions, noises = [text[t.prompt] for t in chunk], [t.noise for t in chunk]
        drawn = canvas.draw_if_it_fits(
            conditions, noises, policy, steps, clock, batch_size, on_step=look
        )
        if drawn is None:
            continue
        images += drawn[0]
        parts.append(policy)
        deviations.append(drawn[1].deviations)
        previews.append([] if look is None else look.decoded(clock))
    if not parts:
        return Rollout([], [], None, torch.zeros(steps - 1, 0), torch.zeros(0, steps - 1))
    return Rollout(
        list(trajectories),
        images,
        Observation.join([Observation.stack(part.seen) for part in parts]),
        torch.cat([torch.stack(part.ratios) for part in parts], dim=1),
        torch.cat(deviations),
        [[image for part in stage for image in part] for stage in zip(*previews, strict=True)],
        torch.cat([stacked(part.scales, len(part.generators)) for part in parts]),
        torch.cat([part.shares for part in parts]),
        parts[0].sigmas,
    )


@dataclass
class Previews:
    """The x̂0 that each decision of a batch is made at, as images.

    Called after each evaluation with its state.
    """

    canvas: Canvas
    clean: list[Tensor] = field(default_factory=list)

    def __call__(self, state: StepState) -> None:
        if state.index + 1 < state.num_evaluations:
            self.clean.append(state.clean.to(state.latents.dtype))

    def decoded(self, clock: Stopwatch) -> list[list[Image.Image]]:
        """The images of each x̂0."""
        with clock("decode"):
            return [self.canvas.decode(latents) for latents in self.clean]
