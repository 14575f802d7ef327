"""A schedule that is calibrated on a backbone's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.checks import check_steps
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.provenance import versions
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.prompts.prompt_set import ALL, PromptSet
from asyncdiff_cli.engine.schedules.calibration import Calibration, Settled, deviations_of
from asyncdiff_cli.engine.schedules.picture_set import PictureSet
from asyncdiff_cli.engine.schedules.request import BATCH_SIZE
from asyncdiff_cli.engine.schedules.search import Search

CALIBRATION = "calibration"
"""How a file says that it was made like this."""


def calibrated_schedule(
    backbone: Backbone,
    prompts: Sequence[str],
    num_inference_steps: int | None = None,
    *,
    guidance_scale: float | None = None,
    size: int | None = None,
    seeds: Sequence[int] | None = None,
    search: Search | None = None,
    batch_size: int = BATCH_SIZE,
    on_settled: Callable[[Settled], None] | None = None,
) -> Schedule:
    """Find the deviations with which a backbone's few steps come closest to its many.

    Args:
        backbone: with its text encoders; one evaluation a step.
        prompts: to search on, each with noise of its own.
        num_inference_steps: K; default the backbone's, as are the guidance and size (in pixels).
        seeds: of the noise, one per prompt; default 0, 1, 2 …
        search: how long is searched.
        batch_size: images drawn at once.
        on_settled: told of each deviation as it is settled.

    Raises:
        InputError: for settings that cannot be, or a solver that evaluates twice a step.
        AsyncDiffError: for NaN or infinity in the latents.

    Example:
        >>> from asyncdiff_cli.engine.schedules.search import Search
        >>> backbone = load_backbone("mini", device="cpu")
        >>> quick = Search(split=2, candidates=3, sweeps=0)
        >>> schedule = calibrated_schedule(backbone, ["a cat"], 3, search=quick)
        >>> schedule.steps, len(schedule.deviations)
        (3, 2)
    """
    search, steps = search or Search(), num_inference_steps or backbone.entry.num_inference_steps
    seeds = range(len(prompts)) if seeds is None else seeds
    check_steps(steps)
    if not prompts or len(seeds) != len(prompts) or steps < 2 or batch_size < 1:
        raise InputError("a calibration needs 2 steps, and prompts with a seed each")
    canvas = Canvas(backbone, guidance_scale, size)
    backbone.check_size(canvas.pixels, canvas.pixels)
    pictures = PictureSet(canvas, tuple(prompts), tuple(seeds), steps, batch_size)
    settled: list[Settled] = []
    with pictures.calibration(search) as calibration:
        for one in calibration.run():
            settled.append(one)
            if on_settled is not None:
                on_settled(one)
        deviations = deviations_of(settled)
        made: dict[str, Any] = {
            "by": CALIBRATION,
            **asdict(search),
            "images": len(prompts),
            "prompts_sha256": PromptSet("given", ALL, tuple(prompts)).fingerprint,
            "seeds": list(seeds),
            **search_errors(calibration, deviations),
            "versions": versions(),
        }
    return pictures.schedule(deviations, made, {})


def search_errors(calibration: Calibration, deviations: Sequence[float]) -> dict[str, float]:
    """What a schedule lacks to the aims of its search, and what no deviation at all does."""
    return {
        "error": calibration.error(deviations),
        "synchronous_error": calibration.error(calibration.synchronous),
    }
