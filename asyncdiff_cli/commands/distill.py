"""`asyncdiff distill`: the best schedule of a trained module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from asyncdiff_cli.commands.schedules import ScheduleOptions, make

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice
    from asyncdiff_cli.engine.schedules.distill_request import DistillRequest
    from asyncdiff_cli.engine.schedules.job import Way


def distill(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODULE",
            help="A module's directory or repository, a backbone that ships one, or a run.",
        ),
    ],
    wanted: ScheduleOptions,
) -> None:
    """Find the schedule whose pictures are closest to those of a trained module.

    It begins with the mean or median of what the module decides at each step, and says what share
    of its decisions the step alone explains. On validation prompts the module and its schedule are
    compared by how close they come to many steps, and by --rewards. Of a run, its recipe says what
    is not given. A command that was killed goes on where it stopped.

    asyncdiff distill runs/mini --out mini.json
    """
    from asyncdiff_cli.engine.schedules.distill_request import parse_distill_request

    request, choice = parse_distill_request(source, wanted.model, out=wanted.out, **wanted.settings)
    make(wanted, request, choice, request.search.distilling, _way)


def _way(request: DistillRequest, choice: ModelChoice) -> Way:
    from asyncdiff_cli.engine.schedules.distill import distillation_way

    return distillation_way(request, choice)
