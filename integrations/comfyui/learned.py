"""A run in which a trained module chooses, for each image, the time that the model is told next.

What it is shown (AsyncDiff, Eq. 7) is what the sampler has in ComfyUI: the latents that it asks the
model about, the guided velocity that it is answered, the times of both, and the positive prompt's
embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_base import SD3, Flux
from comfy.samplers import KSAMPLER
from torch import Tensor

from .module import Module
from .sampler import Told, conditioned, next_cond_sigma

ONCE = "euler, dpmpp_2m, res_multistep, uni_pc, lcm"
"""Samplers that ask the model once a step, for messages."""


def learned(sampler: Any, module: Module, gamma: float) -> KSAMPLER:
    """A sampler that runs another with the model told the times that a module chooses.

    Args:
        sampler: a `KSAMPLER`.
        gamma: γ, what the deviations are multiplied by. At 0 the sampler is run as it is.

    Raises:
        ValueError: as `conditioned`, and in a run for a model or a prompt that the module was not
            made for.
        RuntimeError: in a run, for a sampler that evaluates the model at times of its own, and for
            latents that are not finite.
    """

    def times_of_run(model: Any, sigmas: Tensor) -> Choices | None:
        if gamma == 0 or len(sigmas) < 3:  # the first evaluation is synchronous
            return None
        return Choices(module, model.inner_model, sigmas, gamma)

    return conditioned(sampler, times_of_run, gamma)


class Choices(Told):
    """The times of a run as they are chosen.

    Args:
        guider: ComfyUI's, in a run.
        sigmas: its grid, falling [K + 1].
    """

    def __init__(self, module: Module, guider: Any, sigmas: Tensor, gamma: float) -> None:
        _check_model(guider.inner_model)
        self.module, self.guider, self.gamma = module, guider, gamma
        self.sigmas, self.evaluation = sigmas.float(), 0
        self.cond_sigma: Tensor | None = None
        """t*_k of each image, fp32 [B]; None is t_k, as it is of the first evaluation."""

    def at(self, sigma: list[float]) -> list[float]:
        """t* of the rows of a call: the images, as often as there are conditions."""
        if self.cond_sigma is None:
            return sigma
        told = self.cond_sigma.tolist()
        return told * (len(sigma) // len(told))

    def around(self, model: Any) -> Any:
        """The model, whose answers to the sampler are seen."""
        return Seen(model, self)

    def check_time(self, sigma: Tensor) -> None:
        """The sampler asks for the grid's next time.

        Raises:
            RuntimeError: if not.
        """
        k, last = self.evaluation, len(self.sigmas) - 2
        if k > last or not (sigma.float() == self.sigmas[k]).all():
            raise RuntimeError(
                "the sampler asks the model more than once a step, or between the steps:"
                f" evaluation {k + 1} is at {sigma[0]:g}. A module chooses once a step: take one of"
                f" {ONCE}"
            )

    def decide(self, latents: Tensor, denoised: Tensor) -> None:
        """Lines 7 to 10 of Algorithm 2, after an evaluation of latents [B, C, H, W].

        Raises:
            ValueError: for latents or a prompt that the module was not made for.
            RuntimeError: if something is not finite.
        """
        k, self.evaluation = self.evaluation, self.evaluation + 1
        if self.evaluation == len(self.sigmas) - 1:  # the last time conditions nothing
            return
        sigma, sigma_next = self.sigmas[k : k + 2]
        velocity = (latents - denoised) / sigma
        deviation = self._deviation(latents, velocity)
        if not deviation.isfinite().all():
            raise RuntimeError(f"NaN or infinity in the latents at step {k + 1}")
        self.cond_sigma = next_cond_sigma(sigma, sigma_next, deviation, self.gamma, self.sigmas[0])

    def _deviation(self, latents: Tensor, velocity: Tensor) -> Tensor:
        """The module's choice, fp32 [B]."""
        k, batch, device = self.evaluation - 1, len(latents), latents.device
        text = [_of_batch(value.to(device), batch) for value in _text(self.guider)]
        _check_channels(self.module, latents, *text)
        sigma, sigma_next = self.sigmas[k : k + 2]
        cond_sigma = sigma if self.cond_sigma is None else self.cond_sigma
        progress = torch.full_like(sigma, k / (len(self.sigmas) - 1))
        times = [v.expand(batch) for v in (cond_sigma, sigma, sigma_next, progress)]
        return self.module.to(device)(latents, velocity, torch.stack(times), *text)


class Seen:
    """A sampler's model, with all that it has, each of whose answers is shown to `Choices`."""

    def __init__(self, model: Any, choices: Choices) -> None:
        self._model, self._choices = model, choices

    def __call__(self, x: Tensor, sigma: Tensor, **options: Any) -> Tensor:
        """x̂0 of latents [B, …] at σ [B]."""
        self._choices.check_time(sigma)
        denoised = self._model(x, sigma, **options)
        self._choices.decide(x, denoised)
        return denoised

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _check_model(model: Any) -> None:
    """What the module is shown is what it was trained on for these models alone."""
    if not isinstance(model, (SD3, Flux)):
        raise ValueError(
            f"a module is run for SD3, SD3.5 and FLUX.1, and this model is {type(model).__name__}:"
            " take the node `Async schedule`, with the schedule that `asyncdiff distill` makes of"
            " the module"
        )


def _text(guider: Any) -> tuple[Tensor, Tensor]:
    """The positive prompt's sequence [1, tokens, channels] and pooled embedding [1, channels]."""
    conditions = getattr(guider, "conds", {}).get("positive") or []
    if len(conditions) != 1:
        raise ValueError(
            f"a module chooses by one prompt, and the positive side has {len(conditions)}"
            " conditions: connect one that is not combined of several"
        )
    given = conditions[0].get("model_conds", {})
    if not {"c_crossattn", "y"} <= given.keys():
        raise ValueError(
            "a module for SD3 or FLUX.1 is shown a pooled embedding of the prompt, and this"
            " model has none"
        )
    return given["c_crossattn"].cond, given["y"].cond


def _of_batch(value: Tensor, batch: int) -> Tensor:
    """Rows of conditions, one for each image, as ComfyUI repeats them."""
    return value[torch.arange(batch, device=value.device) % len(value)]


def _check_channels(module: Module, latents: Tensor, sequence: Tensor, pooled: Tensor) -> None:
    config = module.config
    wanted = config.latent_channels, config.prompt_channels, config.pooled_channels
    own = latents.shape[1], sequence.shape[-1], pooled.shape[-1]
    if latents.ndim != 4 or own != wanted:
        raise ValueError(
            "the module was trained for latents, prompts and pooled prompts of"
            f" {', '.join(map(str, wanted))} channels, and this model has"
            f" {', '.join(map(str, own))}: train one for it with `asyncdiff train`"
        )
