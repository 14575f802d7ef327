"""Asynchronous conditioning inside an unchanged diffusers pipeline."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import (
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)
from torch import Tensor

from asyncdiff_cli.engine.adapters import ConditioningTime
from asyncdiff_cli.engine.checks import check_gamma, unknown
from asyncdiff_cli.engine.decisions import check_finite, decide, scaled
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.policies import Policy, StepState
from asyncdiff_cli.engine.sampler import stacked
from asyncdiff_cli.engine.schedulers import check_scheduler

PIPELINES: dict[type, str] = {
    StableDiffusion3Pipeline: "sd3",
    StableDiffusion3Img2ImgPipeline: "sd3",
    StableDiffusion3InpaintPipeline: "sd3",
    FluxPipeline: "flux",
    FluxImg2ImgPipeline: "flux",
    FluxInpaintPipeline: "flux",
}
"""The pipelines that `attach` knows, and their families."""


class Trace:
    """What the last call of the pipeline was conditioned on; empty before the first."""

    def __init__(self, policy: Policy, gamma: float, time: ConditioningTime) -> None:
        self._policy, self._gamma, self._time = policy, gamma, time
        self._restart()

    @property
    def cond_sigmas(self) -> Tensor:
        """t*, fp32 [B, evaluations] on the CPU."""
        return stacked(self._cond_sigmas)

    @property
    def deviations(self) -> Tensor:
        """D before γ, fp32 [B, evaluations − 1] on the CPU."""
        return stacked(self._deviations, len(self.cond_sigmas))

    def _restart(self) -> None:
        self._cond_sigmas: list[Tensor] = []
        self._deviations: list[Tensor] = []
        self._embeds: tuple[Tensor, Tensor] | None = None
        self._grid: tuple[int, int] | None = None
        self._time.clear()

    def _called(self, embeds: Tensor, pooled: Tensor, image_ids: Tensor | None) -> None:
        """Keep the text of an evaluation's first call, which holds the positive branch last.

        FLUX's image ids [tokens, 3] number rows and columns: the last token has the last ones.
        """
        if self._embeds is None:
            self._embeds = embeds, pooled
        if self._grid is None and image_ids is not None:
            rows, columns = (int(last) + 1 for last in image_ids[-1, 1:])
            self._grid = rows, columns

    def _stepping(self, scheduler: Any, velocity: Tensor, timestep: Any) -> Tensor:
        """The velocity that the scheduler is to take this step with."""
        if self._embeds is None:
            raise AsyncDiffError("the pipeline's transformer was replaced: attach after that")
        if scheduler.step_index is None:  # as the step itself would begin
            scheduler._init_step_index(timestep)
        sigma = scheduler.sigmas[scheduler.step_index].to(velocity.device)
        if not self._cond_sigmas:
            self._cond_sigmas.append(sigma.expand(len(velocity)))
        return scaled(self._policy, self._gamma, velocity, sigma, self._cond_sigmas[-1])

    def _stepped(self, scheduler: Any, velocity: Tensor, latents: Tensor, result: Tensor) -> None:
        """Choose the time of the next evaluation, now that the scheduler has taken this step."""
        assert self._embeds is not None  # _stepping has seen to it
        embeds, pooled = (e[-len(latents) :] for e in self._embeds)
        self._embeds = None

        sigmas = scheduler.sigmas.to(latents.device)
        k, index = scheduler.step_index - 1, len(self._deviations)
        evaluations = len(scheduler.timesteps) - (k - index)  # image-to-image starts late
        state = StepState(
            index=index,
            num_evaluations=evaluations,
            sigma=sigmas[k],
            sigma_next=sigmas[k + 1],
            cond_sigma=self._cond_sigmas[-1],
            latents=latents,
            velocity=velocity,
            prompt_embeds=embeds,
            pooled_prompt_embeds=pooled,
            grid=self._grid,
        )
        check_finite(result, state)
        self._time.clear()
        if index + 1 < evaluations:
            deviation, cond_sigma = decide(self._policy, self._gamma, state, sigmas[k - index])
            self._deviations.append(deviation)
            self._cond_sigmas.append(cond_sigma)
            self._time.set(state.sigma_next, cond_sigma)


@contextmanager
def attach(pipe: Any, policy: Policy, gamma: float = 1.0) -> Iterator[Trace]:
    """Within the `with` block, make a diffusers pipeline condition its model asynchronously.

    The pipeline is called as always, any number of times, and returns what `sample` returns, bit
    for bit, for the same arguments; only a grid that ends above 0 is left where it ends. After the
    block the pipeline is as it was, also when something raised.

    Args:
        pipe: one of `PIPELINES`, with the scheduler and transformer that it will run with.
        policy: who chooses the deviations.
        gamma: γ, what they are multiplied by (Eq. 12).

    Yields:
        The trace of the last call.

    Raises:
        InputError: for a pipeline or scheduler that is not known, or one attached already.
        AsyncDiffError: from inside a call, as `sample`.
    """
    if type(pipe) not in PIPELINES:
        names = [c.__name__ for c in PIPELINES]
        raise InputError(unknown("pipeline class", type(pipe).__name__, names))
    check_gamma(gamma)
    scheduler, transformer = pipe.scheduler, pipe.transformer
    check_scheduler(scheduler, PIPELINES[type(pipe)])
    if isinstance(scheduler, _Observed):
        raise InputError("this pipeline is attached already")

    with ConditioningTime(transformer) as time:
        trace = Trace(policy, gamma, time)

        def called(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            if module is not transformer:  # a deep copy
                return
            if pipe.scheduler is not scheduler:
                raise AsyncDiffError("the pipeline's scheduler was replaced: attach after that")
            text = kwargs["encoder_hidden_states"], kwargs["pooled_projections"]
            trace._called(*text, kwargs.get("img_ids"))

        hook = transformer.register_forward_pre_hook(called, with_kwargs=True)
        scheduler_class = type(scheduler)
        scheduler.__class__ = _observed(scheduler, trace)
        try:
            yield trace
        finally:
            scheduler.__class__ = scheduler_class
            hook.remove()


class _Observed:
    """Marks a scheduler that reports to a trace."""


def _observed(scheduler: Any, trace: Trace) -> type:
    """The scheduler's class, reporting to the trace; a deep copy of the scheduler does not.

    A method set on the scheduler itself would be copied along and go on stepping the original.
    """
    base: Any = type(scheduler)

    class Observed(base, _Observed):
        @functools.wraps(base.set_timesteps)
        def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
            if self is scheduler:
                trace._restart()
            super().set_timesteps(*args, **kwargs)

        @functools.wraps(base.step)
        def step(
            self, model_output: Tensor, timestep: Tensor, sample: Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            if self is not scheduler:
                return super().step(model_output, timestep, sample, *args, **kwargs)
            velocity = trace._stepping(self, model_output, timestep)
            result = super().step(velocity, timestep, sample, *args, **kwargs)
            trace._stepped(self, velocity, sample, result[0])
            return result

    Observed.__name__, Observed.__qualname__ = base.__name__, base.__qualname__
    Observed.__module__ = base.__module__
    return Observed
