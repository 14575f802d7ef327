"""Where a run's steps lie between noise and image, chosen apart from the solver that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from asyncdiff_cli.engine.errors import InputError

OWN_SPACING: dict[str, dict[str, Any]] = {
    "model": {},
    "uniform": {"shift": 1.0, "use_dynamic_shifting": False, "shift_terminal": None},
    "karras": {"use_karras_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "logsnr": {},
}
"""What of the model's Euler scheduler each grid changes."""
NOT_QUITE_1 = 1 - 1e-6
"""Where multistep solvers start in place of 1, at which log-SNR is infinite; as diffusers does."""


class OnGrid:
    """Mixed into a diffusers solver: it takes its steps on one of the grids, of any model.

    A pipeline calls it as always. K times σ, decreasing, and a last one of 0:

    - model: the times at which Euler evaluates this model;
    - uniform: 1 − k/K, which undoes the model's shift;
    - karras, beta: between the model's first and last time, Karras et al. (arXiv 2206.00364, Eq. 5)
      with ρ = 7, and quantiles of Beta(0.6, 0.6) (arXiv 2407.12173), both by diffusers;
    - logsnr: equal steps of log((1 − σ)/σ) between these, as DPM-Solver's (arXiv 2206.00927); from
      the model's finest training time on, since at σ = 1 it is infinite.
    """

    grid: str
    sigmas: torch.Tensor
    timesteps: torch.Tensor
    _model: FlowMatchEulerDiscreteScheduler
    _explicit: bool

    @classmethod
    def make(
        cls, grid: str, explicit: bool, config: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> Any:
        """The solver with the model's scheduler configuration, changed by `settings`.

        Args:
            explicit: as `Adapter.hands_grid`.
        """
        scheduler: Any = cls.from_config(dict(config), **settings)  # type: ignore[attr-defined]
        scheduler.grid, scheduler._explicit = grid, explicit
        scheduler._model = FlowMatchEulerDiscreteScheduler.from_config(
            {**config, "shift": model_shift(config)}, **OWN_SPACING[grid]
        )
        return scheduler

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Set the solver's own, which resets it; then the grid takes the place of the solver's."""
        base: Any = super()
        steps = len(sigmas) if num_inference_steps is None and sigmas is not None else None
        steps = num_inference_steps or steps or 0
        wanted = inspect.signature(base.set_timesteps).parameters
        shift = {"mu": mu} if "mu" in wanted and self._dynamic else {}
        base.set_timesteps(steps, device=device, **shift)
        grid = torch.from_numpy(np.append(self._times(steps, sigmas, mu), 0)).float()
        times = grid[:-1]
        if isinstance(self, FlowMatchHeunDiscreteScheduler):  # two evaluations a step but the last
            times = torch.cat([grid[:1], grid[1:-1].repeat_interleave(2)])
        self.sigmas = torch.cat([times, grid[-1:]]).to(self.sigmas.device)
        self.timesteps = (times * self._model.config.num_train_timesteps).to(device)

    @property
    def _dynamic(self) -> bool:
        config: Any = self.config  # type: ignore[attr-defined]
        return bool(config.get("use_dynamic_shifting", False))

    def _times(
        self, steps: int, sigmas: Sequence[float] | None, mu: float | None
    ) -> np.ndarray[Any, Any]:
        """The K times, [K]."""
        if self.grid == "uniform" or (sigmas is None and self._explicit):
            sigmas = np.linspace(1.0, 1 / steps, steps).tolist()
        self._model.set_timesteps(steps, sigmas=sigmas, mu=mu)
        times = self._model.sigmas[:-1].numpy().astype(np.float64)
        if self.grid == "logsnr":
            finest = 1 - 1 / self._model.config.num_train_timesteps
            first, last = np.minimum(times[[0, -1]], finest)
            log_snr = np.linspace(np.log((1 - first) / first), np.log((1 - last) / last), steps)
            times = 1 / (1 + np.exp(log_snr))
        if isinstance(self, DPMSolverMultistepScheduler | UniPCMultistepScheduler):
            times = np.minimum(times, NOT_QUITE_1)
        return times


def check_direction(config: Mapping[str, Any]) -> None:
    """A scheduler runs from noise to image.

    Raises:
        InputError: if not.
    """
    if config.get("invert_sigmas"):
        raise InputError("schedulers with invert_sigmas=True run from 0 to 1, which is unsupported")


def model_shift(config: Mapping[str, Any]) -> float:
    """The static shift of a model, in the words of any of the schedulers."""
    return float(config.get("flow_shift") or config.get("shift") or 1.0)


class EulerOnGrid(OnGrid, FlowMatchEulerDiscreteScheduler):
    """Euler."""


class HeunOnGrid(OnGrid, FlowMatchHeunDiscreteScheduler):
    """Heun, of second order by two evaluations a step."""


class DPMSolverOnGrid(OnGrid, DPMSolverMultistepScheduler):
    """DPM-Solver++."""


class UniPCOnGrid(OnGrid, UniPCMultistepScheduler):
    """UniPC."""


ON_GRID: dict[str, type[OnGrid]] = {
    "euler": EulerOnGrid,
    "heun": HeunOnGrid,
    "dpmpp": DPMSolverOnGrid,
    "unipc": UniPCOnGrid,
}
