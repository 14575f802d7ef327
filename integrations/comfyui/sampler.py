"""A sampler of ComfyUI whose model is told other times than the sampler's (AsyncDiff, Algorithm 2).

ComfyUI's samplers ask for a denoised image, x − σ·v, at each σ of their grid, which is t for a flow
model. The time that the model is told and the one that its velocity is scaled by are one there: at
t* it gives x̂0 = x − t*·v*. Here it is told t*, and answers x − (x − x̂0)·σ/t* = x − σ·v*, so that
the sampler moves by the velocity of t* and by nothing else. That takes place around the model
itself, beneath guidance, masks and whatever else is laid over it, which go on at σ.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_sampling import CONST
from comfy.samplers import KSAMPLER
from torch import Tensor

from .schedules import Schedule

SIGMA_MIN = 1e-3
"""The cleanest time that the model is ever told."""
ROUNDING = 1e-4
"""How far above 1 a shift may bring the first time."""
SAMPLERS = {
    "euler": ("sample_euler",),
    "dpmpp": ("sample_dpmpp_2m",),
    "unipc": ("sample_unipc", "sample_unipc_bh2"),
}
"""ComfyUI's functions for the solvers of schedule files."""

log = logging.getLogger(__name__)


def asynchronous(sampler: Any, schedule: Schedule, gamma: float) -> KSAMPLER:
    """A sampler that runs another with the model told a schedule's t* in place of σ.

    Args:
        sampler: a `KSAMPLER`.
        schedule: the deviations.
        gamma: γ, what they are multiplied by. Where γ·D is 0 all along, the sampler is run as it
            is.

    Raises:
        ValueError: as `conditioned`.
    """

    def times_of_run(model: Any, sigmas: Tensor) -> Times | None:
        return Times.of_run(sigmas, schedule, gamma)

    made = conditioned(sampler, times_of_run, gamma)
    _warn_of_another_solver(schedule, sampler.sampler_function)
    return made


def conditioned(
    sampler: Any, times_of_run: Callable[[Any, Tensor], Told | None], gamma: float
) -> KSAMPLER:
    """A sampler that runs another with the model told other times than the sampler's.

    Args:
        sampler: a `KSAMPLER`.
        times_of_run: from a run's model and sigmas [K + 1], what is told in it; None runs the
            sampler as it is.
        gamma: γ, to be looked at.

    Raises:
        ValueError: for a γ or sampler that is none. In a run, for a model that is no flow model,
            or sigmas that do not fall within [0, 1].
    """
    if not math.isfinite(gamma):
        raise ValueError(f"gamma is {gamma}: give a finite number")
    if getattr(type(sampler), "sample", None) is not KSAMPLER.sample:  # it does more than call
        raise ValueError(
            f"a sampler of the kind {type(sampler).__name__} cannot be wrapped: connect one of"
            " KSamplerSelect's"
        )
    inner = sampler.sampler_function

    def sample_asynchronous(
        model: Any, x: Tensor, sigmas: Tensor, extra_args: dict | None = None, **options: Any
    ) -> Tensor:
        _check_flow(model.inner_model.inner_model.model_sampling)
        times = times_of_run(model, sigmas)
        if times is None:
            return inner(model, x, sigmas, extra_args=extra_args, **options)
        _check_grid(sigmas)
        told = times.put_into(extra_args or {})
        drawn = inner(times.around(model), x, sigmas, extra_args=told, **options)
        if not times.asked:
            raise RuntimeError(
                "the guider asked the model without `model_options`, so that nothing was told to"
                " it: use one of ComfyUI's own, such as BasicGuider or CFGGuider"
            )
        return drawn

    return KSAMPLER(sample_asynchronous, sampler.extra_options, sampler.inpaint_options)


def cond_sigmas(sigmas: Tensor, deviations: list[float], gamma: float) -> Tensor:
    """t*_k of a run's evaluations.

    Args:
        sigmas: t of the evaluations and a last time, fp32 [K + 1].
        deviations: D of the evaluations 1 … K − 1.

    Returns:
        [K], of which the first is t_0.
    """
    own = sigmas.new_tensor(deviations)
    told = next_cond_sigma(sigmas[:-2], sigmas[1:-1], own, gamma, sigmas[0])
    return torch.cat([sigmas[:1], told])


def next_cond_sigma(
    sigma: Tensor, sigma_next: Tensor, deviation: Tensor, gamma: float, sigma_max: Tensor
) -> Tensor:
    """t*_{k+1} = t_k + (1 + γ·D)·(t_{k+1} − t_k) (Eq. 6), kept between σ_min and t_0.

    All are fp32, of shapes that fit one another. Where γ·D is 0 it is t_{k+1} to the bit.
    """
    eta = 1 + gamma * deviation
    told = torch.where(eta == 1, sigma_next, sigma + eta * (sigma_next - sigma))
    inside = told.clamp(min=SIGMA_MIN).minimum(sigma_max)
    return torch.where(told == sigma_next, sigma_next, inside)


class Told:
    """What a model is told in a run."""

    asked: bool = False
    """Whether a model was told one."""

    def at(self, sigma: list[float]) -> list[float]:
        """t* of each row of a call of the model at σ."""
        raise NotImplementedError

    def around(self, model: Any) -> Any:
        """The model as the sampler is to see it."""
        return model

    def put_into(self, extra_args: dict[str, Any]) -> dict[str, Any]:
        """A sampler's `extra_args` by which the model is told these times."""
        options = extra_args.get("model_options", {})
        wrapped = options.get("model_function_wrapper")

        def wrapper(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
            telling = self._telling(apply_model)
            if wrapped is not None:  # by a node before the sampler: it sees the sampler's time
                return wrapped(telling, args)
            return telling(args["input"], args["timestep"], **args["c"])

        return {**extra_args, "model_options": {**options, "model_function_wrapper": wrapper}}

    def _telling(self, apply_model: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The model, [n, …] and σ [n] to x − σ·v, whose v is that of t*."""

        def telling(x: Tensor, sigma: Tensor, **conditions: Any) -> Tensor:
            self.asked = True
            times = sigma.tolist()
            told = self.at(times)
            if told == times:
                return apply_model(x, sigma, **conditions)
            denoised = apply_model(x, sigma.new_tensor(told), **conditions)
            scale = [time / t for time, t in zip(times, told, strict=True)]
            return x - (x - denoised) * x.new_tensor(scale).reshape(-1, *[1] * (x.ndim - 1))

        return telling


@dataclass
class Times(Told):
    """What a model is told by a schedule."""

    sigmas: list[float]
    """The run's grid, rising."""
    offsets: list[float]
    """t* − t there."""

    @classmethod
    def of_run(cls, sigmas: Tensor, schedule: Schedule, gamma: float) -> Times | None:
        """The times of a run on a grid, [K + 1]; None if none differs from the grid's."""
        grid = sigmas.float().cpu()
        if len(grid) < 3:  # the first evaluation is synchronous, and there is no other
            return None
        told = cond_sigmas(grid, schedule.for_run(len(grid) - 2), gamma)
        if torch.equal(told, grid[:-1]):
            return None
        # in fp64 the sum of a time and its offset is t* again to the bit
        offsets = torch.cat([told, grid[-1:]]).double() - grid.double()
        return cls(grid.flip(0).tolist(), offsets.flip(0).tolist())

    def at(self, sigma: list[float]) -> list[float]:
        """t* of evaluations at any times: between those of the grid the offset is interpolated
        linearly, and outside of them there is none."""
        return [self._at(time) for time in sigma]

    def _at(self, sigma: float) -> float:
        if not self.sigmas[0] <= sigma <= self.sigmas[-1]:
            return sigma
        k = max(bisect_left(self.sigmas, sigma), 1)
        low, high = self.sigmas[k - 1 : k + 1]
        before, after = self.offsets[k - 1 : k + 1]
        return sigma + before + (sigma - low) / (high - low) * (after - before)


def _check_flow(sampling: Any) -> None:
    """A model's denoised image is x − σ·v, and its σ is t."""
    if getattr(type(sampling), "calculate_denoised", None) is not CONST.calculate_denoised:
        kinds = " and ".join(base.__name__ for base in type(sampling).__bases__)
        raise ValueError(
            f"only flow models such as SD3, FLUX and Qwen-Image can be told other times, and this"
            f" model's sampling is {kinds}: take the node out"
        )


def _check_grid(grid: Tensor) -> None:
    """Times fall, within [0, 1]."""
    if not (grid[0] <= 1 + ROUNDING and grid[-1] >= 0 and (grid.diff() < 0).all()):
        raise ValueError("the sigmas of a flow model fall, from at most 1: these do not")


def _warn_of_another_solver(schedule: Schedule, function: Callable[..., Tensor]) -> None:
    name = getattr(function, "__name__", "another")
    if schedule.solver is not None and name not in SAMPLERS[schedule.solver]:
        log.warning(
            "asyncdiff: the schedule is for %s, and the sampler's function is %s: another solver"
            " needs other deviations",
            schedule.solver,
            name,
        )
