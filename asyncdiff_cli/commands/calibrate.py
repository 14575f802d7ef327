"""`asyncdiff calibrate`: a schedule by what few steps of a model lack to its many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncdiff_cli.commands.schedules import ScheduleOptions, make

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice
    from asyncdiff_cli.engine.schedules.job import Way
    from asyncdiff_cli.engine.schedules.request import ScheduleRequest


def calibrate(wanted: ScheduleOptions) -> None:
    """Find the deviations with which K steps of a model come closest to its many, without a reward.

    The schedule is searched on training prompts, and tried on validation prompts against no
    deviation, the derived schedule and the best constant. A command that was killed goes on where
    it stopped, to the same bytes. Draw with it by `--policy calibrated:FILE.json`.

    asyncdiff calibrate --backbone mini --steps 8 --out mini-8.json
    """
    from asyncdiff_cli.engine.schedules.request import ScheduleRequest, parse_drawn_request

    request = parse_drawn_request(ScheduleRequest, wanted.model, out=wanted.out, **wanted.settings)
    make(wanted, request, wanted.model, request.search.calibrating, _way)


def _way(request: ScheduleRequest, choice: ModelChoice) -> Way:
    from asyncdiff_cli.engine.schedules.calibrate import calibration_way

    return calibration_way(request, choice)
