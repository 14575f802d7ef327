"""What a policy is: it chooses how far the conditioning time runs ahead of the integrator.

A policy is asked after each evaluation of the denoiser but the last one, and answers with the
deviation D of the next: 0 is synchronous, +1 looks one whole interval ahead (cleaner), -1 repeats
the previous time (noisier). Scaling by γ comes later and is not a policy's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.deferred import DeferredChecks


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
    token_grid: tuple[int, int] | None = None
    """Rows and columns of packed latents' tokens; None where they are not packed."""
    prompt_embeds_mask: Tensor | None = None
    """bool [B, tokens], True where a token is not padding; None where none is."""
    checks: DeferredChecks = field(default_factory=DeferredChecks)
    """What is looked at of the run's numbers."""

    @property
    def progress(self) -> str:
        """The step that this is, for messages."""
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

    Four more methods are used where a policy has them, which it need not:

    `cond_sigma(state, gamma, deviation)` is t*_{k+1} [B], or [] for all images, in place of Eq. 6.
    Like that it is kept in [σ_min, t_0].
    `velocity_scale(sigma, cond_sigma, gamma)` is what to multiply the guided velocity by of an
    evaluation at t_k = `sigma` [] that was conditioned on t*_k = `cond_sigma` [B]: [B], [] or None.
    `latent_scale(sigma, cond_sigma, gamma)` is the multiple of the latents to add to it, likewise.
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


class ToldTime(Described):
    """A policy that says the time itself, by its `cond_sigma`, which leaves the deviation open.

    D is what would lead to the same time by Eq. 6 at γ = 1, and 0 where Heun repeats a time. It
    may exceed 1: late intervals are short beside their times.
    """

    bound: ClassVar[float] = math.inf

    def __call__(self, state: StepState) -> Tensor:
        told = self.cond_sigma(state, 1.0, torch.zeros(()))
        return desync.deviation_to(told, state.sigma, state.sigma_next)

    def cond_sigma(self, state: StepState, gamma: float, deviation: Tensor) -> Tensor:
        """t*_{k+1} for a deviation that is left open, []."""
        raise NotImplementedError
