"""A schedule as a file: its deviations, what they were made for, and how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator
from typing_extensions import Self

from asyncdiff_cli.engine.backbones.registry import SCHEDULER_CLASSES, evaluations
from asyncdiff_cli.engine.checks import unknown
from asyncdiff_cli.engine.limits import MAX_GUIDANCE, MAX_SIDE, MAX_STEPS
from asyncdiff_cli.engine.reading import AS_TUPLE, Saved

if TYPE_CHECKING:
    from torch import Tensor

    from asyncdiff_cli.engine.backbones.backbone import Backbone
    from asyncdiff_cli.engine.policies.given import SolverSchedule

Deviation = Annotated[float, Field(ge=-1, le=1)]
Time = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class Schedule(Saved):
    """Deviations for the runs of one solver, and what is known of them. None is not known.

    Example:
        >>> import torch
        >>> schedule = Schedule(deviations=(0.8, 0.5, 0.1), steps=4)
        >>> schedule.policy().for_run(torch.linspace(1, 0, 5), "euler").deviations
        (0.8, 0.5, 0.1)
    """

    file: ClassVar[str] = "schedule.json"
    """Its name in a hub repository."""

    format: Literal[1] = 1
    deviations: Annotated[
        tuple[Deviation, ...],
        AS_TUPLE,
        Field(min_length=1, max_length=2 * MAX_STEPS),
    ]
    """D before γ of each evaluation but the first."""
    solver: str = "euler"
    """Another one's runs are refused: it takes other deviations."""
    steps: Annotated[int, Field(ge=2, le=MAX_STEPS)]
    """K. For runs of another length the deviations are resampled, with a warning."""
    backbone: str | None = None
    revision: str | None = None
    grid: str | None = None
    """The grid's name, as `--grid` takes it."""
    shift: float | None = None
    """The shift of a grid that has a static one."""
    guidance_scale: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] | None = None
    height: Side | None = None
    width: Side | None = None
    """Pixels."""
    sigmas: tuple[Time, ...] | None = None
    """t of each evaluation, and a last 0."""
    cond_sigmas: tuple[Time, ...] | None = None
    """t* of each evaluation at γ = 1."""
    made: dict[str, JsonValue] = Field(default_factory=dict)
    """The command, versions, prompts and whatever else makes it again."""
    held_out: dict[str, JsonValue] = Field(default_factory=dict)
    """What it is worth on prompts that it was not made on."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.solver not in SCHEDULER_CLASSES:
            raise ValueError(unknown("solver", self.solver, SCHEDULER_CLASSES))
        needed = evaluations(self.solver, self.steps) - 1
        if len(self.deviations) != needed:
            raise ValueError(
                f"{self.steps} steps of {self.solver} need {needed} deviations, not"
                f" {len(self.deviations)}"
            )
        return self

    def policy(self, source: str | None = None) -> SolverSchedule:
        """The policy that deviates by it, and records the hub repository that it came from."""
        from asyncdiff_cli.engine.policies.given import SolverSchedule

        return SolverSchedule(self.deviations, self.solver, source=source)


def schedule_of(
    backbone: Backbone, sigmas: Tensor, deviations: Sequence[float], **known: Any
) -> Schedule:
    """The schedule of a backbone's runs.

    Args:
        sigmas: t of each evaluation and a last 0, on the CPU, [evaluations + 1].
        deviations: D before γ of each evaluation but the first.
        known: the fields of `Schedule` that a backbone does not tell.
    """
    from asyncdiff_cli.engine import desync
    from asyncdiff_cli.engine.backbones.grids import model_shift

    config = backbone.pipe.scheduler.config
    static = backbone.grid == "model" and not config.get("use_dynamic_shifting")
    return Schedule(
        deviations=tuple(deviations),
        solver=backbone.scheduler,
        backbone=backbone.location,
        revision=backbone.revision,
        grid=backbone.grid,
        shift=model_shift(config) if static else None,
        sigmas=tuple(sigmas.tolist()),
        cond_sigmas=tuple(desync.cond_sigmas(sigmas, sigmas.new_tensor(deviations)).tolist()),
        **known,
    )
