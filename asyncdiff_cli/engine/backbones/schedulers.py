"""The solvers that integrate a flow-matching velocity, and what each needs to do so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers

from asyncdiff_cli.engine.backbones.adapters import ADAPTERS
from asyncdiff_cli.engine.backbones.grids import ON_GRID, OnGrid, check_direction, model_shift
from asyncdiff_cli.engine.backbones.registry import GRIDS, SCHEDULER_CLASSES
from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import InputError

SCHEDULERS: dict[str, Any] = {
    name: getattr(diffusers, class_name) for name, class_name in SCHEDULER_CLASSES.items()
}
MULTISTEP = ("dpmpp", "unipc")


def check_names(scheduler: str | None, grid: str | None) -> None:
    """Whether there are such a scheduler and grid; costs nothing, so ask before loading weights.

    Raises:
        InputError: for an unknown name.
    """
    if scheduler is not None:
        check_choice("scheduler", scheduler, SCHEDULERS)
    if grid is not None:
        check_choice("grid", grid, GRIDS)


def make_scheduler(
    name: str, family: str, config: Mapping[str, Any], grid: str | None = None
) -> Any:
    """A scheduler for the model whose scheduler configuration is `config`.

    The multistep solvers come from noise prediction: without their three settings they integrate
    another equation and return noise. On the grid "model" they and Euler are diffusers' own,
    except where these cannot express the model's grid; see `OnGrid` for the others.

    Args:
        grid: one of `GRIDS`; default "model".

    Raises:
        InputError: as `check_names`.

    Example:
        >>> scheduler = make_scheduler("dpmpp", "sd3", {"shift": 3.0})
        >>> type(scheduler).__name__, scheduler.config.flow_shift
        ('DPMSolverMultistepScheduler', 3.0)
    """
    check_names(name, grid)
    settings = _settings(name, model_shift(config))
    explicit = _hands_grid(family)
    foreign = (name == "heun" and explicit) or (name != "euler" and config.get("shift_terminal"))
    if grid in (None, "model") and not foreign:
        return SCHEDULERS[name].from_config(dict(config), **settings)
    return ON_GRID[name].make(grid or "model", explicit, config, settings)


def shifted_scheduler(name: str, shift: float, grid: str | None = None) -> Any:
    """A scheduler of no model: its grid "model" is 1, 1 − 1/K, …, 1/K by `shift`, for all solvers.

    Raises:
        InputError: as `check_names`.
    """
    check_names(name, grid)
    config = {"shift": shift}
    return ON_GRID[name].make(grid or "model", True, config, _settings(name, shift))


def _settings(name: str, shift: float) -> dict[str, Any]:
    """What makes a scheduler of a flow with a static shift."""
    if name not in MULTISTEP:
        return {"shift": shift}
    return {
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
        "flow_shift": shift,
    }


def _hands_grid(family: str) -> bool:
    """The `Adapter.hands_grid` of a family."""
    return any(kind.hands_grid for kind in ADAPTERS.values() if kind.family == family)


def scheduler_name(scheduler: Any) -> str:
    """The key of `SCHEDULERS` that a scheduler is an instance of.

    Raises:
        InputError: for another class.
    """
    for name, scheduler_class in SCHEDULERS.items():
        if isinstance(scheduler, scheduler_class):
            return name
    raise InputError(_unknown_class(type(scheduler).__name__))


def class_scheduler_name(class_name: str) -> str:
    """The `scheduler_name` of a pipeline's own scheduler, by its class alone; see `check_names`.

    Raises:
        InputError: if it is not known.
    """
    for name, known in SCHEDULER_CLASSES.items():
        if class_name == known:
            return name
    raise InputError(_unknown_class(class_name))


def _unknown_class(class_name: str) -> str:
    known = ", ".join(SCHEDULER_CLASSES.values())
    return f"{class_name} is not a scheduler for flow models that is known here; use {known}"


def grid_name(scheduler: Any) -> str:
    """The grid that a scheduler is on; "model" for all of diffusers' own."""
    return scheduler.grid if isinstance(scheduler, OnGrid) else "model"


def check_scheduler(scheduler: Any, family: str) -> None:
    """Whether a pipeline's scheduler integrates a flow.

    Raises:
        InputError: for a class that is not one of `SCHEDULERS`, one that the family cannot take,
            or a multistep solver that is not set to flow matching; and for one that conditions
            asynchronously by itself.
    """
    if hasattr(type(scheduler), "cond_sigmas"):  # an AsyncFlowMatchEulerScheduler
        raise InputError(
            f"{type(scheduler).__name__} has deviations of its own, and a policy would add to them:"
            " put the pipeline's FlowMatchEulerDiscreteScheduler back"
        )
    name, config = scheduler_name(scheduler), scheduler.config
    if name == "heun" and _hands_grid(family) and not isinstance(scheduler, OnGrid):
        raise InputError(
            f"{type(scheduler).__name__} cannot take the grid of {family};"
            ' use make_scheduler("heun", …), which can'
        )
    if name in MULTISTEP and not (
        config.use_flow_sigmas and config.prediction_type == "flow_prediction"
    ):
        raise InputError(
            f"{SCHEDULERS[name].__name__} needs use_flow_sigmas=True and"
            ' prediction_type="flow_prediction" to integrate a flow model'
        )
    check_direction(config)
