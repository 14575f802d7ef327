"""A schedule of deviations as a diffusers scheduler, which any flow pipeline takes for its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.grids import check_direction
from asyncdiff_cli.engine.checks import check_gamma
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.given import FixedDeviation, ScheduledDeviation


class AsyncFlowMatchEulerScheduler(FlowMatchEulerDiscreteScheduler):
    """Euler on the model's own grid, whose denoiser is told other times (Algorithm 2).

    diffusers' flow pipelines hand `timesteps` to the model and leave the latents to `step`, which
    moves them along `sigmas`. Here timesteps are 1000·t*, where t* follows from the deviations by
    Eq. 6, and sigmas stay on the grid. Where γ·D is 0 a timestep is the grid's, bit for bit. A
    run's first evaluation is told the grid's time (Algorithm 2, line 2), also where a run begins
    late, as image-to-image does.

    Args:
        deviations: D of the evaluations 1 … K − 1, each in [-1, 1], for runs of K steps and no
            others; or one number, for runs of any length.
        gamma: γ, what the deviations are multiplied by (Eq. 12); at 0 this is the stock scheduler.
        args, kwargs: the settings of `FlowMatchEulerDiscreteScheduler`.

    Raises:
        InputError: for a deviation or γ that is none. By `set_timesteps`, for a run of another
            length than the deviations', and where `from_config` was given the configuration of
            another kind of scheduler.

    Example:
        >>> from diffusers import FlowMatchEulerDiscreteScheduler
        >>> stock = FlowMatchEulerDiscreteScheduler(shift=3.0)
        >>> scheduler = AsyncFlowMatchEulerScheduler.from_config(stock.config, deviations=0.5)
        >>> scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
        >>> scheduler.sigmas
        tensor([1.0000, 0.9000, 0.7500, 0.5000, 0.0000])
        >>> scheduler.timesteps.round()
        tensor([1000.,  850.,  675.,  375.])
    """

    timesteps: Tensor

    def __init__(
        self,
        *args: Any,
        deviations: Sequence[float] | float = 0.0,
        gamma: float = 1.0,
        **kwargs: Any,
    ) -> None:
        check_gamma(gamma)
        checked: float | list[float]
        if np.ndim(deviations):
            checked = list(ScheduledDeviation(deviations).deviations)  # type: ignore[arg-type]
        else:
            checked = float(FixedDeviation(deviations).deviation)  # type: ignore[arg-type]
        super().__init__(*args, **kwargs)
        self.register_to_config(deviations=checked, gamma=float(gamma))
        self._refusal: str | None = None
        self._told = self.timesteps

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """Make one from a scheduler's configuration, with the settings that `kwargs` change.

        Raises:
            InputError: for a setting that there is not, which diffusers would leave out.
        """
        if not return_unused_kwargs and (unknown := kwargs.keys() - _settings()):
            raise InputError(
                f"AsyncFlowMatchEulerScheduler has no setting {min(unknown)!r}: its own are"
                " deviations and gamma"
            )
        made = super().from_config(config, return_unused_kwargs, **kwargs)
        scheduler = made[0] if return_unused_kwargs else made
        scheduler._refusal = _refusal(config)
        return made

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
        timesteps: list[float] | None = None,
    ) -> None:
        """Set the stock scheduler's; then the deviations move the time of each evaluation.

        Raises:
            InputError: as the class, and for `timesteps`, which are the deviations' to choose.
        """
        if self._refusal:
            raise InputError(self._refusal)
        check_direction(self.config)
        if timesteps is not None:
            raise InputError(
                "`timesteps` follow from the deviations here: leave them out, and where it is the"
                " pipeline that gives its own, use another"
            )
        super().set_timesteps(num_inference_steps, device, sigmas, mu)
        self._on_grid = self.timesteps
        self._told = self._deviating()
        self.timesteps = self._told.clone()

    @property
    def cond_sigmas(self) -> Tensor:
        """t*_k of each evaluation, fp32 [K], in [0, 1]."""
        return self.timesteps / self.config.num_train_timesteps

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Set the stock scheduler's; the evaluation that a run begins with is synchronous."""
        super().set_begin_index(begin_index)
        # in place: a pipeline may have cut out what it runs through before it says where it begins
        self.timesteps.copy_(self._told)
        self.timesteps[begin_index] = self._on_grid[begin_index]

    def index_for_timestep(
        self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None
    ) -> int:
        """Find the first evaluation at a timestep; several may be told the same."""
        timesteps = self.timesteps if schedule_timesteps is None else schedule_timesteps
        return int((timesteps == timestep).nonzero()[0])

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Leave latents as they are: what pipelines ask all but the exact stock class for."""
        return sample

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Step as the stock scheduler does.

        Raises:
            InputError: for `per_token_timesteps`, which would move the latents by the told times.
        """
        if kwargs.get("per_token_timesteps") is not None:
            raise InputError("latents with a time per token cannot be conditioned asynchronously")
        return super().step(*args, **kwargs)

    def _deviating(self) -> Tensor:
        """The timesteps that the denoiser is told, fp32 [K]."""
        deviations, decisions = self.config.deviations, len(self.timesteps) - 1
        if isinstance(deviations, float):
            deviations = [deviations] * decisions
        if len(deviations) != decisions:
            raise InputError(
                f"{len(deviations)} deviations are for runs of {len(deviations) + 1} steps, and"
                f" this one has {decisions + 1}: give {decisions} deviations, or one number for all"
            )
        deviation = self.sigmas.new_tensor(deviations)
        cond_sigmas = desync.cond_sigmas(self.sigmas, deviation, self.config.gamma)
        told = self.config.num_train_timesteps * cond_sigmas
        return torch.where(cond_sigmas == self.sigmas[:-1], self.timesteps, told)


def _refusal(config: Mapping[str, Any]) -> str | None:
    """Why a configuration's grid is not Euler's for flows; None if it may be."""
    name = config.get("_class_name")
    # one that was made, and not loaded, has no name, and only its settings tell
    foreign = sorted(key for key in config.keys() - _settings() if not key.startswith("_"))
    known = (FlowMatchEulerDiscreteScheduler.__name__, AsyncFlowMatchEulerScheduler.__name__)
    if name in known or (name is None and not foreign):
        return None
    return (
        f"the configuration of {name or f'another scheduler, with {foreign[0]},'} has no grid for"
        " AsyncFlowMatchEulerScheduler: give that of the model's FlowMatchEulerDiscreteScheduler,"
        " such as FlowMatchEulerDiscreteScheduler(shift=…).config"
    )


def _settings() -> Set[str]:
    """The stock scheduler's, and this one's own."""
    return inspect.signature(AsyncFlowMatchEulerScheduler.__init__).parameters.keys()


def _with_own(signature: inspect.Signature, stock: inspect.Signature) -> inspect.Signature:
    """The stock settings in place of `args` and `kwargs`: diffusers takes a class's from here."""
    own = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    return signature.replace(parameters=[*stock.parameters.values(), *own])


AsyncFlowMatchEulerScheduler.__init__.__signature__ = _with_own(  # type: ignore[attr-defined]
    inspect.signature(AsyncFlowMatchEulerScheduler.__init__),
    inspect.signature(FlowMatchEulerDiscreteScheduler.__init__),
)
AsyncFlowMatchEulerScheduler.__module__ = __name__.partition(".")[0]
"""Where a saved pipeline says that it is; diffusers finds it there once that was imported."""
