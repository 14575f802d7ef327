"""The solvers that integrate a flow-matching velocity, and which family each of them serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers

from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.registry import SCHEDULER_CLASSES

SCHEDULERS: dict[str, Any] = {
    name: getattr(diffusers, class_name) for name, class_name in SCHEDULER_CLASSES.items()
}
MULTISTEP = ("dpm-solver++", "unipc")


def check_scheduler_name(name: str, family: str) -> None:
    """Whether a family can run under a scheduler; costs nothing, so ask before loading weights.

    Raises:
        InputError: for an unknown name, or Heun under FLUX, whose grid it cannot take.
    """
    check_choice("scheduler", name, SCHEDULERS)
    if name == "heun" and family == "flux":
        raise InputError("scheduler heun cannot take FLUX's grid; use euler, dpm-solver++ or unipc")


def make_scheduler(name: str, family: str, config: Mapping[str, Any]) -> Any:
    """The scheduler `name` on the grid of the model whose scheduler configuration is `config`.

    The multistep solvers come from noise prediction: without these three settings they integrate
    another equation and return noise.

    Raises:
        InputError: as `check_scheduler_name`.
    """
    check_scheduler_name(name, family)
    shift = config.get("flow_shift", config.get("shift", 1.0))
    settings: dict[str, Any] = {"shift": shift}
    if name in MULTISTEP:
        settings = {
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
            "flow_shift": shift,
        }
    return SCHEDULERS[name].from_config(dict(config), **settings)


def scheduler_name(scheduler: Any) -> str:
    """The key of `SCHEDULERS` that a scheduler is an instance of.

    Raises:
        InputError: for another class.
    """
    for name, scheduler_class in SCHEDULERS.items():
        if isinstance(scheduler, scheduler_class):
            return name
    raise InputError(
        f"{type(scheduler).__name__} is not a scheduler for flow models that is known here;"
        f" use {', '.join(c.__name__ for c in SCHEDULERS.values())}"
    )


def check_scheduler(scheduler: Any, family: str) -> None:
    """Whether a pipeline's scheduler integrates a flow.

    Raises:
        InputError: for a class that is not one of `SCHEDULERS`, one that the family cannot take,
            or a multistep solver that is not set to flow matching.
    """
    name, config = scheduler_name(scheduler), scheduler.config
    check_scheduler_name(name, family)
    if name in MULTISTEP and not (
        config.use_flow_sigmas and config.prediction_type == "flow_prediction"
    ):
        raise InputError(
            f"{SCHEDULERS[name].__name__} needs use_flow_sigmas=True and"
            ' prediction_type="flow_prediction" to integrate a flow model'
        )
    if config.get("invert_sigmas"):
        raise InputError("schedulers with invert_sigmas=True run from 0 to 1, which is unsupported")
