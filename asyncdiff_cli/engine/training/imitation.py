"""A module that draws a given schedule before it has learned anything (`Recipe.start`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Beta, kl_divergence

from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.seeds import SCHEDULE, noise_seed
from asyncdiff_cli.engine.policies.actions import of_steps
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.policies.observation import Observation
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
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


def watch(
    canvas: Canvas, prompts: list[str], policy: Policy, steps: int, seed: int
) -> tuple[Observation, Tensor]:
    """Draw an image of each prompt by a policy, one after the other, and keep what a module sees.

    Returns:
        What is seen, [S, B, …], and the deviations, fp32 [S, B] on the CPU.
    """
    text, batches, deviations = canvas.encode(prompts), [], []
    for n, prompt in enumerate(prompts):
        seen: list[Observation] = []

        def keep(state: StepState, seen: list[Observation] = seen) -> None:
            if state.index + 1 < state.num_evaluations:
                seen.append(Observation.of(state))

        noise = noise_seed(seed, SCHEDULE, n)
        result = canvas.sample([text[prompt]], [noise], policy, steps, on_step=keep)
        batches.append(Observation.stack(seen))
        deviations.append(result.deviations.T)
    return Observation.join(batches), torch.cat(deviations, dim=1)


def imitate(tpm: TimestepPredictionModule, watched: Sequence[tuple[Observation, Tensor]]) -> None:
    """Train a module until the modes of its Betas are these deviations, whatever the image.

    It is brought to Betas with α + β = 4, as an untrained module's, so that draws spread as wide.
    Its other actions stay where an untrained module's are.

    Args:
        watched: what is seen, [S, B, …], and the deviations, [S, B], of runs of one K each, which
            count alike. What is beyond the module's bound counts as at it.
    """

    def wanted(deviations: Tensor) -> Beta:
        ratio = (deviations.to(tpm.device) / (2 * tpm.bound) + 0.5).clamp(MARGIN, 1 - MARGIN)
        others = [torch.full_like(ratio, 0.5)] * (len(of_steps(tpm.actions)) - 1)
        ratio = torch.stack([ratio, *others], dim=1).flatten(0, 1)
        return grpo.beta(2 * ratio, 2 * (1 - ratio))

    targets = [(seen, wanted(deviations)) for seen, deviations in watched]
    optimizer = torch.optim.Adam(tpm.parameters(), lr=FITTING_RATE)
    for _ in range(FITTING_STEPS):
        optimizer.zero_grad()
        losses = [kl_divergence(beta, grpo.beta(*tpm(seen))).mean() for seen, beta in targets]
        torch.stack(losses).mean().backward()
        nn.utils.clip_grad_norm_(tpm.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad()
