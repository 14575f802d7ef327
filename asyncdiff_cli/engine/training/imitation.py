"""A module that decides as a given policy before it has learned anything (`Recipe.start`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Beta, kl_divergence

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.seeds import SCHEDULE, noise_seed
from asyncdiff_cli.engine.policies.actions import DEVIATION, SCALING, of_steps
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.policies.observation import Observation
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
from asyncdiff_cli.engine.policies.watched import WatchedScales
from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.recipe import Recipe

WATCHED = 8
"""Images that are looked at."""
FITTING_STEPS, FITTING_RATE = 150, 1e-3
"""Steps of Adam, each on all of them."""
FITTED = 3
"""Numbers of steps of a range that it is fitted at: both ends and the middle."""
MARGIN = 0.02
"""What is left of r* on either side: a Beta whose mode is a bound would not draw beside it."""


def fitted_steps(recipe: Recipe) -> list[int]:
    """The numbers of steps that a module is fitted at: the recipe's, or some of its range."""
    if recipe.step_range is None:
        return [recipe.num_inference_steps]
    low, high = recipe.step_range
    return sorted({low + round(n * (high - low) / (FITTED - 1)) for n in range(FITTED)})


class Watched(NamedTuple):
    """Runs of one K by a policy: what a module would see, and what the policy decided."""

    seen: Observation
    """[S, B, …]."""
    deviations: Tensor
    """D, fp32 [S, B] on the CPU."""
    scales: Tensor
    """ω of the same evaluations, fp32 [S, B] on the CPU; 1 by a policy that scales nothing."""


def watch(canvas: Canvas, prompts: list[str], policy: Policy, steps: int, seed: int) -> Watched:
    """Draw an image of each prompt by a policy, one after the other, and keep what is decided."""
    text, batches, deviations, scales = canvas.encode(prompts), [], [], []
    for n, prompt in enumerate(prompts):
        seen: list[Observation] = []

        def keep(state: StepState, seen: list[Observation] = seen) -> None:
            if state.index + 1 < state.num_evaluations:
                seen.append(Observation.of(state))

        noise, watched = noise_seed(seed, SCHEDULE, n), WatchedScales(policy, [])
        result = canvas.sample([text[prompt]], [noise], watched, steps, on_step=keep)
        batches.append(Observation.stack(seen))
        own = result.deviations.T
        deviations.append(own)
        factors = watched.scales[-len(own) :]  # a module leaves evaluation 0 alone
        scales.append(torch.stack(factors).float().cpu() if factors else torch.ones_like(own))
    return Watched(
        Observation.join(batches), torch.cat(deviations, dim=1), torch.cat(scales, dim=1)
    )


def imitate(tpm: TimestepPredictionModule, watched: Sequence[Watched]) -> None:
    """Train a module until the modes of its Betas are these decisions, whatever the image.

    It is brought to Betas with α + β = 4, as an untrained module's, so that draws spread as wide.
    A grid stays the scheduler's, as an untrained module's.

    Args:
        watched: runs of one K each, which count alike. What is beyond the module's bound counts as
            at it, and what is not among its actions does not count.
    """

    def wanted(runs: Watched) -> Beta:
        decided = {
            DEVIATION: desync.ratio_from_deviation(runs.deviations, tpm.bound),
            SCALING: desync.ratio_from_scale(runs.scales),
        }
        ratios = torch.stack([decided[action] for action in of_steps(tpm.actions)], dim=1)
        ratio = ratios.flatten(0, 1).to(tpm.device).clamp(MARGIN, 1 - MARGIN)
        return grpo.beta(2 * ratio, 2 * (1 - ratio))

    targets = [(runs.seen, wanted(runs)) for runs in watched]
    optimizer = torch.optim.Adam(tpm.parameters(), lr=FITTING_RATE)
    for _ in range(FITTING_STEPS):
        optimizer.zero_grad()
        losses = [kl_divergence(beta, grpo.beta(*tpm(seen))).mean() for seen, beta in targets]
        torch.stack(losses).mean().backward()
        nn.utils.clip_grad_norm_(tpm.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad()
