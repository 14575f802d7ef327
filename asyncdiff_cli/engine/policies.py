"""Who chooses how far the conditioning time runs ahead of the integrator, and when.

A policy is asked after each evaluation of the denoiser but the last one, and answers with the
deviation D of the next: 0 is synchronous, +1 looks one whole interval ahead (cleaner), -1 repeats
the previous time (noisier). Scaling by γ comes later and is not a policy's business.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.checks import check_choice, check_deviation
from asyncdiff_cli.engine.deferred import DeferredChecks
from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning, InputError
from asyncdiff_cli.engine.reading import shown


@dataclass(frozen=True)
class StepState:
    """What is known after evaluation k of the denoiser, before the latents move (Eq. 7).

    Latents are as the pipeline holds them: [B, C, H, W] for SD3 and Z-Image, packed [B, HW/4, 4C]
    for FLUX, FLUX.2 and Qwen-Image.
    """

    index: int
    """k, in 0 … num_evaluations − 1. A step of Heun's method evaluates twice."""
    num_evaluations: int
    sigma: Tensor
    """t_k, shape []."""
    sigma_next: Tensor
    """t_{k+1}, shape []."""
    cond_sigma: Tensor
    """t*_k, fp32 [B]: what the velocity was conditioned on."""
    latents: Tensor
    """x_k."""
    velocity: Tensor
    """v*_k, after guidance and the policy's own scaling; same shape as the latents."""
    prompt_embeds: Tensor
    """[B, tokens, channels]."""
    pooled_prompt_embeds: Tensor
    """[B, channels]; for a model that takes none, the mean of `prompt_embeds` over the tokens."""
    grid: tuple[int, int] | None = None
    """Rows and columns of packed latents' tokens; None where they are not packed."""
    prompt_embeds_mask: Tensor | None = None
    """bool [B, tokens], True where a token is not padding; None where none is."""
    checks: DeferredChecks = field(default_factory=DeferredChecks)
    """What is looked at of the run's numbers."""

    @property
    def progress(self) -> str:
        """Which step this is, for messages."""
        return f"step {self.index + 1} of {self.num_evaluations}"

    @property
    def clean(self) -> Tensor:
        """x̂0_k, fp32, same shape as the latents."""
        return desync.clean_estimate(self.latents, self.velocity, self.sigma)

    def select(self, images: slice) -> StepState:
        """The same, of some of the images."""
        per_image = ("cond_sigma", "latents", "velocity", "prompt_embeds", "pooled_prompt_embeds")
        mask = self.prompt_embeds_mask
        return replace(
            self,
            **{name: getattr(self, name)[images] for name in per_image},
            prompt_embeds_mask=None if mask is None else mask[images],
        )


class Policy(Protocol):
    """Anything with a bound that can be asked for a deviation.

    Three more methods are used where a policy has them, which it need not:

    `cond_sigma(state, gamma, deviation)` is t*_{k+1} [B], or [] for all images, in place of Eq. 6.
    Like that it is kept in [σ_min, t_0].
    `velocity_scale(sigma, cond_sigma, gamma)` is what to multiply the guided velocity by of an
    evaluation at t_k = `sigma` [] that was conditioned on t*_k = `cond_sigma` [B]: [B], [] or None.
    `for_run(sigmas, solver)` is the policy to ask in its place in a run whose evaluations are at
    `sigmas`, [evaluations + 1] with the last time that is not evaluated, by a solver's name.
    """

    @property
    def bound(self) -> float:
        """Half-width of the deviation: 0.5 (Eq. 6, 11), 1 (lifted, Eq. 13), or infinite."""
        ...

    def __call__(self, state: StepState) -> Tensor:
        """The deviation of evaluation k + 1, before γ: in [-bound, bound], shape [B] or []."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Name and settings as JSON values; `policy_from_dict` makes the policy from them."""
        ...


class Described:
    """A policy whose settings are its dataclass fields."""

    name: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        settings = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        return {"name": self.name, **settings}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        return cls(**settings)


@dataclass(frozen=True)
class Synchronous(Described):
    """D = 0: the stock pipeline, to the bit."""

    name: ClassVar[str] = "synchronous"
    bound: ClassVar[float] = 1.0

    def __call__(self, state: StepState) -> Tensor:
        return torch.zeros(())


@dataclass(frozen=True)
class FixedDeviation(Described):
    """One constant deviation (AsyncDiff, end of section 4.2).

    Args:
        deviation: D in [-1, 1], for all images, or a sequence or tensor with one per image.

    Raises:
        InputError: for a value outside [-1, 1] or not a number.
    """

    deviation: float | tuple[float, ...]

    name: ClassVar[str] = "fixed"
    bound: ClassVar[float] = 1.0

    def __init__(self, deviation: float | Sequence[float] | Tensor) -> None:
        values = _checked(deviation, self.bound)
        object.__setattr__(self, "deviation", values if np.ndim(deviation) else values[0])

    def __call__(self, state: StepState) -> Tensor:
        return torch.tensor(self.deviation)


@dataclass(frozen=True)
class ScheduledDeviation(Described):
    """A deviation per decision, resampled linearly for runs with another number of decisions.

    Args:
        deviations: D for evaluations 1 … K − 1, each in [-bound, bound].
        bound: 0.5 or 1.

    Raises:
        InputError: for an empty list, another bound, or a value outside it or not a number.
    """

    deviations: tuple[float, ...]
    bound: float = 1.0

    name: ClassVar[str] = "schedule"

    def __init__(self, deviations: Sequence[float] | Tensor, bound: float = 1.0) -> None:
        object.__setattr__(self, "bound", _checked_bound(bound))
        object.__setattr__(self, "deviations", _checked(deviations, bound))

    @classmethod
    def ramp(
        cls, start: float, end: float, decisions: int, shape: float = 1.0, bound: float = 1.0
    ) -> ScheduledDeviation:
        """From `start` to `end` along u^shape: linear at 1, late above it, early below it.

        Raises:
            InputError: as the class, and for `decisions` < 1 or `shape` ≤ 0.
        """
        if decisions < 1 or not shape > 0:
            raise InputError(
                f"a ramp needs at least 1 decision and a shape above 0, not {decisions}, {shape}"
            )
        values = start + (end - start) * np.linspace(0, 1, decisions) ** shape
        return cls(values.tolist(), bound)

    def __call__(self, state: StepState) -> Tensor:
        return torch.tensor(self.resampled(state.num_evaluations - 1)[state.index])

    def resampled(self, decisions: int) -> tuple[float, ...]:
        """The schedule for another number of decisions; unchanged for its own."""
        if decisions == len(self.deviations):
            return self.deviations
        own = np.linspace(0, 1, len(self.deviations))
        return tuple(np.interp(np.linspace(0, 1, decisions), own, self.deviations).tolist())


@dataclass(frozen=True)
class SolverSchedule(ScheduledDeviation):
    """A schedule that holds for one solver, as a schedule file has it.

    Args:
        deviations, bound: as of `ScheduledDeviation`.
        solver: the name of the scheduler whose runs it is for.

    Raises:
        InputError: as `ScheduledDeviation`; in a run by another solver.
    """

    solver: str = "euler"

    name: ClassVar[str] = "solver-schedule"

    def __init__(
        self,
        deviations: Sequence[float] | Tensor,
        solver: str = "euler",
        bound: float = 1.0,
    ) -> None:
        super().__init__(deviations, bound)
        object.__setattr__(self, "solver", solver)

    def for_run(self, sigmas: Tensor, solver: str) -> Policy:
        """The deviations of the run's evaluations; a warning says where they are resampled."""
        if solver != self.solver:
            raise InputError(
                f"the schedule is for runs by {self.solver}, and this one is by {solver}: another"
                " solver needs other deviations"
            )
        decisions = len(sigmas) - 2
        if decisions > 0 and decisions != len(self.deviations):
            warnings.warn(
                f"the schedule has {len(self.deviations)} deviations and the run takes {decisions}:"
                " it is resampled, and no longer what it was made to be",
                AsyncDiffWarning,
                stacklevel=2,
            )
        return ScheduledDeviation(self.resampled(max(decisions, 1)), self.bound)


def policy_from_dict(description: dict[str, Any]) -> Policy:
    """The policy that `to_dict` described: `{"name": "fixed", "deviation": 0.5}`.

    Raises:
        InputError: for an unknown name (with the nearest one) or settings that do not fit.
    """
    settings = dict(description)
    name, known = str(settings.pop("name", None)), policies()
    check_choice("policy", name, known)
    try:
        return known[name].from_dict(settings)
    except AsyncDiffError:
        raise
    except TypeError:  # of which the message names classes
        raise InputError(f"policy {name} is not made of the settings {shown(settings)}") from None
    except (ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise InputError(f"policy {name}: {error}") from None


def policies() -> dict[str, Any]:
    """The policies by name: classes that make one `from_dict`."""
    from asyncdiff_cli.engine import each, learned, rivals, spectral  # which build on this module

    return {
        policy.name: policy
        for policy in (
            *(
                Synchronous,
                FixedDeviation,
                ScheduledDeviation,
                SolverSchedule,
                learned.LearnedDeviation,
            ),
            *(rivals.DetailDaemon, rivals.VelocityScale, rivals.Combined, rivals.TimeShift),
            *(spectral.SpectralDeviation, each.EachPolicy),
        )
    }


def _checked(deviation: Any, bound: float) -> tuple[float, ...]:
    try:
        values = torch.as_tensor(deviation, dtype=torch.float64).reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"a deviation is a number, not {deviation!r}") from None
    if not values:
        raise InputError("no deviation given")
    for value in values:
        check_deviation(value, bound)
    return tuple(values)


def _checked_bound(bound: float) -> float:
    if bound not in (0.5, 1.0):
        raise InputError(f"bound is 0.5 or 1, not {bound!r}")
    return float(bound)
