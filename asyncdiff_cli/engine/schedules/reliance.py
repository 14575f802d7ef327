"""How much a network relies on the time it is told, and how much it reads off the latents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.backbones.memory.footprint import ALONE
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.drawing.opening import open_canvas
from asyncdiff_cli.engine.drawing.seeds import SCHEDULE, noise_seed
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.given import Synchronous
from asyncdiff_cli.engine.policies.spectra import Spectrum
from asyncdiff_cli.engine.policies.transfer import velocity_coefficient
from asyncdiff_cli.engine.sampling.loop import integrate
from asyncdiff_cli.engine.schedules.calibration import Images
from asyncdiff_cli.engine.schedules.picture_set import PictureSet


@dataclass(frozen=True)
class Reliance:
    """What x̂0 of the same latents becomes if another time is told."""

    sigma: float
    """t of the evaluation."""
    cond_sigma: float
    """t* that is told in its place: the time of the next."""
    change: float
    """Root mean square of what x̂0 changes by, in units of the noise."""
    expected: float
    """The same of the exact field of Gaussian data of a spectrum, which must be told all."""

    @property
    def share(self) -> float:
        """`change` in `expected`: 0 for a network that reads the time off the latents."""
        return self.change / self.expected


def open_picture_set(
    outline: Outline,
    accelerator: Accelerator,
    prompts: Sequence[str],
    steps: int | None,
    size: int | None,
    directory: Path,
    on_warning: Callable[[str], None],
) -> PictureSet:
    """Load a backbone, to draw prompts one by one as it is used.

    Args:
        steps, size: None is the backbone's.
        directory, on_warning: as of `open_canvas`.

    Raises:
        InputError, AsyncDiffError: as `open_canvas`.
    """
    canvas = open_canvas(
        outline, accelerator, None, size, 1, prompts, directory, [], ALONE, on_warning=on_warning
    )
    seeds = tuple(noise_seed(0, SCHEDULE, n) for n in range(len(prompts)))
    steps = steps or outline.entry.num_inference_steps
    return PictureSet(canvas, tuple(prompts), seeds, steps, batch_size=1)


def measure_reliance(pictures: PictureSet, spectrum: Spectrum) -> tuple[Reliance, ...]:
    """Measure it at each evaluation of a synchronous run but those that no time comes after."""
    with pictures.undrawn() as (images, make):
        return reliance_of(images, make, spectrum)


def reliance_of(
    images: Sequence[Images], make: Callable[[], Any], spectrum: Spectrum
) -> tuple[Reliance, ...]:
    """Measure it on batches of images, each with a velocity field.

    Args:
        make: a scheduler for them.
    """
    powers: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
    text = TextConditions(torch.zeros(1, 1, 1))
    for batch in images:
        scheduler = make()
        timesteps = scheduler.timesteps

        def look(state: StepState, batch: Images = batch, timesteps: Tensor = timesteps) -> None:
            sigma, sigma_next = state.sigma, state.sigma_next
            if not 0 < sigma_next < sigma:
                return
            told = sigma_next.expand(len(state.latents))
            velocity = batch.velocity(state.latents, timesteps[state.index], sigma, told)
            moved = sigma * (velocity.double() - state.velocity.double())
            powers[float(sigma), float(sigma_next)].append(moved.square().flatten().cpu())

        integrate(
            batch.velocity,
            scheduler,
            batch.latents,
            Synchronous(),
            1.0,
            text,
            look,
            batch.token_grid,
        )
    return tuple(
        Reliance(*times, float(torch.cat(power).mean().sqrt()), exact_change(*times, spectrum))
        for times, power in powers.items()
    )


def exact_change(sigma: float, cond_sigma: float, spectrum: Spectrum) -> float:
    """Compute the root mean square of what x̂0 = x − t·c(t*)·x of Gaussian data changes by."""
    t, told = (torch.tensor(time, dtype=torch.float64) for time in (sigma, cond_sigma))
    power = ((1 - t) * spectrum.std).square() + t.square()
    own, other = (velocity_coefficient(time, spectrum.std) for time in (t, told))
    return float((spectrum.weight * power * (t * (other - own)).square()).sum().sqrt())
