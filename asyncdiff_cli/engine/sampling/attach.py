"""Asynchronous conditioning inside an unchanged diffusers pipeline."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from diffusers import (
    FluxControlNetImg2ImgPipeline,
    FluxControlNetInpaintPipeline,
    FluxControlNetPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    QwenImageControlNetPipeline,
    QwenImageImg2ImgPipeline,
    StableDiffusion3ControlNetPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    ZImageImg2ImgPipeline,
)
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters import (
    ADAPTERS,
    Adapter,
    ConditioningTimes,
    FluxAdapter,
    QwenImageAdapter,
    SD3Adapter,
    ZImageAdapter,
)
from asyncdiff_cli.engine.backbones.schedulers import check_scheduler, scheduler_name
from asyncdiff_cli.engine.checks import check_gamma, unknown_pipeline
from asyncdiff_cli.engine.deferred import DeferredChecks
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.policies.asking import check_finite, decide, for_run, scaled
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.sampling.arguments import check_is_policy
from asyncdiff_cli.engine.sampling.sample import stacked

FROM_IMAGE: dict[Any, type[Adapter]] = {
    StableDiffusion3Img2ImgPipeline: SD3Adapter,
    StableDiffusion3InpaintPipeline: SD3Adapter,
    FluxImg2ImgPipeline: FluxAdapter,
    FluxInpaintPipeline: FluxAdapter,
    QwenImageImg2ImgPipeline: QwenImageAdapter,
    ZImageImg2ImgPipeline: ZImageAdapter,
}
"""The pipelines that `attach` knows beside those of `ADAPTERS`."""
CONTROLLED: dict[Any, type[Adapter]] = {
    StableDiffusion3ControlNetPipeline: SD3Adapter,
    FluxControlNetPipeline: FluxAdapter,
    FluxControlNetImg2ImgPipeline: FluxAdapter,
    FluxControlNetInpaintPipeline: FluxAdapter,
    QwenImageControlNetPipeline: QwenImageAdapter,
}
"""And those with a control net, which is told the same times as the transformer."""


class Trace:
    """What the last call of the pipeline was conditioned on; empty before the first."""

    def __init__(
        self,
        policy: Policy,
        gamma: float,
        time: ConditioningTimes,
        adapter: Adapter,
        on_step: Callable[[StepState], None] | None = None,
    ) -> None:
        self._policy, self._gamma, self._time, self._adapter = policy, gamma, time, adapter
        self._on_step = on_step
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
        self._call: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
        self._token_grid: tuple[int, int] | None = None
        self._sigmas: Tensor | None = None
        self._of_run = self._policy
        self._checks = DeferredChecks()
        self._time.clear()

    def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep an evaluation's first call of the transformer, which has the positive branch."""
        if self._call is None:
            self._call = args, kwargs

    def _stepping(self, scheduler: Any, latents: Tensor, velocity: Tensor, timestep: Any) -> Tensor:
        """The velocity that the scheduler is to take this step with."""
        if self._call is None:
            raise AsyncDiffError("the pipeline's transformer was replaced: attach after that")
        if scheduler.step_index is None:  # as the step itself would begin
            scheduler._init_step_index(timestep)
        if self._sigmas is None:  # once a run: they may be on the CPU
            self._sigmas = scheduler.sigmas.to(velocity.device)
            of_run = self._sigmas[scheduler.step_index :]
            self._of_run = for_run(self._policy, of_run, scheduler_name(scheduler))
        sigma = self._sigmas[scheduler.step_index]
        if not self._cond_sigmas:
            self._cond_sigmas.append(sigma.expand(len(velocity)))
        cond_sigma = self._cond_sigmas[-1]
        return scaled(self._of_run, self._gamma, latents, velocity, sigma, cond_sigma)

    def _stepped(self, scheduler: Any, velocity: Tensor, latents: Tensor, result: Tensor) -> None:
        """Choose the time of the next evaluation, now that the scheduler has taken this step."""
        assert self._call is not None  # _stepping has seen to both
        assert self._sigmas is not None
        text = self._adapter.text_of_call(*self._call, len(latents))
        if self._token_grid is None:  # once a run: a GPU is waited for
            self._token_grid = self._adapter.token_grid_of_call(self._call[1], latents)
        self._call = None

        sigmas = self._sigmas
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
            prompt_embeds=text.prompt_embeds,
            pooled_prompt_embeds=text.pooled,
            token_grid=self._token_grid,
            prompt_embeds_mask=text.prompt_embeds_mask,
            checks=self._checks,
        )
        check_finite(result, state)
        self._time.clear()
        if index + 1 < evaluations:
            deviation, cond_sigma = decide(self._of_run, self._gamma, state, sigmas[k - index])
            self._deviations.append(deviation)
            self._cond_sigmas.append(cond_sigma)
            self._time.set(state.sigma_next, cond_sigma)
        else:
            self._checks.settle()
        if self._on_step is not None:
            self._on_step(state)


@contextmanager
def attach(
    pipe: Any,
    policy: Policy,
    gamma: float = 1.0,
    on_step: Callable[[StepState], None] | None = None,
) -> Iterator[Trace]:
    """Make a diffusers pipeline condition its model asynchronously within the `with` block.

    The pipeline is called as always, any number of times, and returns what `sample` returns, bit
    for bit, for the same arguments; only a grid that ends above 0 is left where it ends. After the
    block the pipeline is as it was, also when something raised.

    Args:
        pipe: one of `ADAPTERS`, `FROM_IMAGE` or `CONTROLLED`, with the scheduler and networks that
            it will run with.
        policy: who chooses the deviations.
        gamma: γ, what they are multiplied by (Eq. 12).
        on_step: called after each evaluation with its state.

    Yields:
        The trace of the last call.

    Raises:
        InputError: for a pipeline or scheduler that is not known, or one attached already.
        AsyncDiffError: from inside a call, as `sample`.

    Example:
        >>> pipe = load_backbone("mini", device="cpu").pipe  # or any loaded pipeline
        >>> pipe.set_progress_bar_config(disable=True)
        >>> with attach(pipe, FixedDeviation(0.5), gamma=1.5) as trace:
        ...     image = pipe("a cat", num_inference_steps=2, height=64, width=64).images[0]
        >>> trace.deviations
        tensor([[0.5000]])
    """
    known = {**ADAPTERS, **FROM_IMAGE, **CONTROLLED}
    if type(pipe) not in known:
        names = [c.__name__ for c in known]
        raise InputError(unknown_pipeline(type(pipe).__name__, names))
    check_is_policy(policy)
    check_gamma(gamma)
    adapter = known[type(pipe)](pipe)
    scheduler = pipe.scheduler
    check_scheduler(scheduler, adapter.family)
    if isinstance(scheduler, _Observed):
        raise InputError("this pipeline is attached already")

    def called(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if pipe.scheduler is not scheduler:
            raise AsyncDiffError("the pipeline's scheduler was replaced: attach after that")
        trace._called(args, kwargs)

    nets = [adapter.conditioning_time(network=net) for net in _control_nets(pipe)]
    time = ConditioningTimes([adapter.conditioning_time(called), *nets])
    trace = Trace(policy, gamma, time, adapter, on_step)
    with time:
        scheduler_class = type(scheduler)
        scheduler.__class__ = _observed(scheduler, trace)
        try:
            yield trace
        finally:
            scheduler.__class__ = scheduler_class


def _control_nets(pipe: Any) -> list[Any]:
    """The control nets of a pipeline, of which some hold several in one."""
    net = getattr(pipe, "controlnet", None)
    return [] if net is None else list(getattr(net, "nets", [net]))


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
            velocity = trace._stepping(self, sample, model_output, timestep)
            result = super().step(velocity, timestep, sample, *args, **kwargs)
            trace._stepped(self, velocity, sample, result[0])
            return result

    Observed.__name__, Observed.__qualname__ = base.__name__, base.__qualname__
    Observed.__module__ = base.__module__
    return Observed
