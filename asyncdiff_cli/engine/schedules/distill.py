"""The best schedule of a trained module: what it decides by the step alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.registry import BASELINE
from asyncdiff_cli.engine.policies.base import Policy
from asyncdiff_cli.engine.policies.learned import LearnedDeviation
from asyncdiff_cli.engine.policies.modules import check_is_schedule
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.repository import is_pinned
from asyncdiff_cli.engine.sampling.sample import SampleResult
from asyncdiff_cli.engine.schedules.calibrated import search_errors
from asyncdiff_cli.engine.schedules.calibration import DECIMALS, deviations_of
from asyncdiff_cli.engine.schedules.distill_request import DistillRequest
from asyncdiff_cli.engine.schedules.job import (
    OnLine,
    Way,
    Workbench,
    beside,
    compared,
)
from asyncdiff_cli.engine.schedules.request import command_line
from asyncdiff_cli.engine.schedules.search import Search

DISTILLATION = "distillation"
"""How a file says that it was made like this."""
STILL = 1e-5
"""The standard deviation of deviations that are all alike but for rounding."""


def distillation_way(request: DistillRequest, choice: ModelChoice) -> Way:
    """The distillation of a module.

    Raises:
        InputError, AsyncDiffError: as `LearnedDeviation.load`, and for a module that decides more
            than deviations.
    """
    policy = LearnedDeviation.load(request.module)
    check_is_schedule(request.module, policy.tpm.actions)
    own = {
        "by": DISTILLATION,
        "module": policy.source,
        "module_fingerprint": policy.fingerprint,
    }
    options = request.given()
    module = options.pop("module")
    place = policy.source if policy.source and is_pinned(policy.source) else module
    command = command_line(["distill", place], choice, options)
    search = request.search
    make = partial(distill_policy, policy, search)
    return Way(Schedule, own, command, search.distilling, make)


def share_of_step(deviations: Tensor) -> float:
    """Share of the variance of decisions that the step alone explains, η² in [0, 1].

    Args:
        deviations: D of each image at each step, [images, K − 1]. Where all are alike it is 1.
    """
    exact = deviations.double()
    total = (exact - exact.mean()).square().sum()
    if total <= STILL**2 * exact.numel():
        return 1.0
    return float(1 - (exact - exact.mean(0)).square().sum() / total)


def distill_policy(policy: Policy, search: Search, bench: Workbench, on_line: OnLine) -> Schedule:
    """Find the schedule whose pictures are closest to those of a policy that chooses by picture.

    It begins with the mean or the median of each step's deviations, whichever is closer, and is
    refined by what the last latents lack to the policy's on the same prompts and noise.
    """
    drawn = [*bench.pictures.drawn_by(policy)]
    decided = torch.cat([result.deviations for result in drawn])
    share = share_of_step(decided)
    settled = bench.settled()
    with bench.pictures.calibration(search, _last(drawn)) as calibration:
        averages = decided.mean(0), decided.median(0).values
        starts = [tuple(round(float(d), DECIMALS) for d in average) for average in averages]
        for one in calibration.refine(starts, settled):
            settled.append(one)
            bench.keep(settled)
            on_line(one.line)
        deviations = deviations_of(settled) or calibration.best(starts)
        own = bench.journal.once("errors", lambda: search_errors(calibration, deviations))
    made = {
        **bench.made,
        "share_of_step": share,
        "module_mean": list(starts[0]),
        "module_median": list(starts[1]),
        "module_std": decided.std(0, correction=0).tolist(),
        **own,
    }
    tried = _tried(policy, search, bench, deviations, on_line)
    return bench.pictures.schedule(deviations, made, tried)


def _tried(
    policy: Policy,
    search: Search,
    bench: Workbench,
    deviations: tuple[float, ...],
    on_line: OnLine,
) -> dict[str, Any]:
    """The policy and its schedule beside no deviation on held-out prompts, and one another."""
    if bench.held_out is None:
        return {}
    drawn = [*bench.held_out.drawn_by(policy)]
    with bench.held_out.calibration(search) as calibration:
        draws = {
            BASELINE: partial(calibration.drawn, calibration.synchronous),
            "distilled": partial(calibration.drawn, deviations),
            "module": partial(_last, drawn),
        }
        found = bench.measure(calibration, draws, on_line)
    return {
        "images": len(bench.held_out.prompts),
        "policies": compared(found),
        "module_over_schedule": beside(found["module"], found["distilled"]),
    }


def _last(drawn: list[SampleResult]) -> list[Tensor]:
    """The last latents of each batch, at least fp32."""
    return [
        result.latents.to(torch.promote_types(result.latents.dtype, torch.float32))
        for result in drawn
    ]
