"""What a run would draw, as far as that is told without torch. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.registry import branches
from asyncdiff_cli.engine.drawing.dry_run import look_up_model
from asyncdiff_cli.engine.training.recipe import Recipe, cost
from asyncdiff_cli.engine.training.run import by_iteration


def training_cost(
    recipe: Recipe,
    path: Path,
    device: str | None = None,
    measure: bool = False,
    on_import: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """What the rollouts of a run have still to draw, as JSON values.

    Args:
        path: the run's directory, whose last checkpoint a run goes on from.
        measure, on_import: as of `look_up_model`.

    Raises:
        InputError, AsyncDiffError: as `look_up_model`.
    """
    entry, size, needs = look_up_model(
        recipe.model(device),
        recipe.size,
        recipe.guidance_scale,
        lambda _: recipe.rollout_batch_size,
        measure,
        on_import,
    )
    done = max(by_iteration(path / "checkpoints", ".safetensors"), default=0)
    left = recipe.model_copy(update={"iterations": max(0, recipe.iterations - done)})
    amount = cost(left, branches(entry, recipe.guidance_scale))
    return {
        "dry_run": True,
        "run": str(path),
        "iterations": recipe.iterations,
        "done": done,
        "dataset": recipe.prompts,
        "prompts": left.iterations * recipe.prompts_per_iteration,
        "group_size": recipe.group_size,
        "seed": recipe.seed,
        "images": amount.images,
        "denoiser_calls": amount.forward_passes,
        "held_out_prompts": recipe.evaluation.prompts if recipe.evaluation.every else 0,
        "rewards": dict(recipe.rewards),
        "steps": recipe.num_inference_steps,
        "guidance": entry.guidance(recipe.guidance_scale),
        "size": recipe.size or size or None,
        "batch_size": recipe.rollout_batch_size,
        **needs.to_dict(),
    }
