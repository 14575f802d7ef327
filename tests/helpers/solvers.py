"""Pipelines with other solvers."""

from asyncdiff_cli.engine.backbones.schedulers import SCHEDULERS, make_scheduler
from tests.conftest import Case, make_case

SOLVERS = [
    (family, scheduler)
    for family in ("sd3", "flux", "flux-cfg")
    for scheduler in SCHEDULERS
    if not (scheduler == "heun" and family != "sd3")
]


def with_scheduler(name: str, scheduler: str) -> Case:
    case = make_case(name)
    config = case.pipe.scheduler.config
    case.pipe.scheduler = make_scheduler(scheduler, case.backbone.adapter.family, config)
    return case
