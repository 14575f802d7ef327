"""Schedules without a reward, in files that are made once and go on after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asyncdiff_cli import render
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.policies.modules import shipped_source
from asyncdiff_cli.engine.policies.specs import read_policy
from asyncdiff_cli.engine.schedules.calibrate import calibration_way
from asyncdiff_cli.engine.schedules.distill import distillation_way
from asyncdiff_cli.engine.schedules.distill_request import DistillRequest
from asyncdiff_cli.engine.schedules.job import Way, open_measuring
from asyncdiff_cli.engine.schedules.journal import workplace
from asyncdiff_cli.engine.schedules.request import BATCH_SIZE, DrawnRequest, ScheduleRequest
from benchmarks.evidence.plan import Plan, searched_solvers
from benchmarks.evidence.rows import EULER, Schedules


def find_schedules(plan: Plan, steps: int, out: Path) -> Schedules:
    """Calibrate each solver, and distill the module, for K; what is there is read.

    Raises:
        InputError, AsyncDiffError: as `open_measuring` and `MeasuringJob.run`.
    """
    if plan.search is None or steps < 2:
        return Schedules({})
    calibrated = {
        solver: _made(
            ScheduleRequest(out=out / f"{solver}-{steps}.json", **_asked(plan, steps)),
            plan.recipe.model().changed(scheduler=solver),
            calibration_way,
        )
        for solver in searched_solvers()
    }
    if plan.distilled is None:
        return Schedules(calibrated)
    request = DistillRequest(
        out=out / f"distilled-{steps}.json",
        module=_place(plan, steps),
        **_asked(plan, steps),
    )
    choice = plan.recipe.model().changed(scheduler=EULER)
    return Schedules(calibrated, _made(request, choice, distillation_way))


def _asked(plan: Plan, steps: int) -> dict[str, object]:
    """The settings of a search, all but where it goes."""
    recipe = plan.recipe
    return {
        "dataset": recipe.prompts,
        "limit": plan.searched,
        "held_out": 0,
        "steps": steps,
        "guidance": recipe.guidance_scale,
        "size": recipe.size and (recipe.size, recipe.size),
        "seed": recipe.evaluation.seed + 3,
        "batch_size": plan.batch_size or BATCH_SIZE,
        "search": plan.search,
    }


def _place(plan: Plan, steps: int) -> str:
    """Where the module is that a schedule is distilled from, as `find_module` takes it."""
    assert plan.distilled is not None
    spec = read_policy(plan.modules[plan.distilled].policy(steps))
    return spec.source or shipped_source(plan.entry.name, spec.name)


def _made(request: DrawnRequest, choice: ModelChoice, way: Callable[..., Way]) -> tuple[float, ...]:
    """The deviations of a file."""
    with workplace(request.out) as directory:
        job = open_measuring(request, choice, way(request, choice), directory, render.warning)
        with render.images(job.evaluations, things=request.out.stem) as advance:
            return job.run(advance).deviations
