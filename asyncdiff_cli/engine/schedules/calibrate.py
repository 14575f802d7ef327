"""`asyncdiff calibrate`: a schedule by calibration, and what it is worth on other prompts."""

from __future__ import annotations

from functools import partial
from typing import Any

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.registry import BASELINE
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.policies.spectral import optimal_deviations
from asyncdiff_cli.engine.schedules.calibrated import CALIBRATION, search_errors
from asyncdiff_cli.engine.schedules.calibration import deviations_of
from asyncdiff_cli.engine.schedules.job import (
    OnLine,
    Way,
    Workbench,
    compared,
)
from asyncdiff_cli.engine.schedules.request import ScheduleRequest, command_line
from asyncdiff_cli.engine.schedules.search import Search


def calibration_way(request: ScheduleRequest, choice: ModelChoice) -> Way:
    """The calibration of a backbone."""
    command = command_line(["calibrate"], choice, request.given())
    search = request.search
    make = partial(_calibrate, search)
    return Way(Schedule, {"by": CALIBRATION}, command, search.calibrating, make)


def _calibrate(search: Search, bench: Workbench, on_line: OnLine) -> Schedule:
    """Search for one deviation a step and for one for all, and try both on held-out prompts."""
    journal, settled = bench.journal, bench.settled()
    solver = bench.pictures.canvas.backbone.scheduler
    with bench.pictures.calibration(search) as calibration:
        for one in calibration.run(settled):
            settled.append(one)
            bench.keep(settled)
            on_line(one.line)
        deviations = deviations_of(settled)
        constant = journal.once("constant", calibration.constant)
        own = journal.once("errors", lambda: search_errors(calibration, deviations))
        spectral = optimal_deviations(tuple(calibration.sigmas.tolist()), solver)
    rivals = {
        BASELINE: calibration.synchronous,
        "spectral": spectral,
        f"fixed:{plain(constant)}": (constant,) * len(deviations),
        "calibrated": deviations,
    }
    made = {**bench.made, "constant": constant, **own}
    return bench.pictures.schedule(deviations, made, _tried(search, bench, rivals, on_line))


def _tried(
    search: Search, bench: Workbench, rivals: dict[str, tuple[float, ...]], on_line: OnLine
) -> dict[str, Any]:
    """Schedules beside the first of them on held-out prompts; nothing without such."""
    if bench.held_out is None:
        return {}
    with bench.held_out.calibration(search) as calibration:
        draws = {
            name: partial(calibration.drawn, deviations) for name, deviations in rivals.items()
        }
        found = bench.measure(calibration, draws, on_line)
    return {"images": len(bench.held_out.prompts), "policies": compared(found)}
