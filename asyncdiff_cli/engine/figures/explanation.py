"""What policies make of detail and of noise, in closed form, on a user's grid with a solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.backbones.choice import DEFAULT_BACKBONE
from asyncdiff_cli.engine.backbones.memory.hollow import empty_adapter
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler, shifted_scheduler
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.figures.explain_request import ExplainRequest
from asyncdiff_cli.engine.policies.asking import for_run, latent_scale_of, velocity_scale_of
from asyncdiff_cli.engine.policies.base import Policy
from asyncdiff_cli.engine.policies.specs import ChosenPolicy, parse_policies
from asyncdiff_cli.engine.policies.spectra import Spectrum, residual_noise, worth_steps
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.policies.transfer import transfer
from asyncdiff_cli.engine.prompts.load import default_source, load_prompts
from asyncdiff_cli.engine.sampling.loop import integrate
from asyncdiff_cli.engine.schedules.request import TWO_EVALUATIONS, two_evaluations

if TYPE_CHECKING:
    from asyncdiff_cli.engine.schedules.reliance import Reliance

USUAL_STEPS, USUAL_SHIFT = 10, 3.0
"""Steps and shift of a run of no backbone."""
MakeScheduler = Callable[[str, int], Any]
"""A solver's name and K to a scheduler that is set to K steps."""


@dataclass(frozen=True)
class Explained:
    """What one policy makes of Gaussian data."""

    policy: str
    """Its line, with γ if that is not 1."""
    error: float
    """Mean squared error of `factors` over all components; the mean power of images is 1."""
    worth_steps: int | None
    """The least number of synchronous steps of Euler that come as near; None if none does."""
    residual_noise: float
    """The noise left, by the function of this name."""
    deviations: tuple[float, ...]
    """D before γ, of each evaluation but the first."""
    cond_sigmas: tuple[float, ...]
    """t* of each evaluation."""
    factors: tuple[tuple[float, float], ...]
    """(s, what comes out for it), for each frequency of the spectrum."""


@dataclass(frozen=True)
class Explanation:
    """Policies on one grid."""

    steps: int
    solver: str
    grid: tuple[float, ...]
    """t_0 … t_K."""
    evaluated: tuple[float, ...]
    """t of each evaluation: twice a time for Heun."""
    frequencies: tuple[float, ...]
    """Cycles per image of each of the policies' `factors`."""
    policies: tuple[Explained, ...]
    reliance: tuple[Reliance, ...] = ()
    """How much the backbone relies on the time it is told, where that was measured."""


def explain(
    make: MakeScheduler, steps: int, solver: str, chosen: Sequence[ChosenPolicy], spectrum: Spectrum
) -> Explanation:
    """Explain policies that do not read the picture, on the grid of K steps of a solver."""
    evaluated = make(solver, steps).sigmas
    grid = evaluated.unique().flip(0)

    @cache
    def by_euler(count: int) -> Tensor:
        return make("euler", count).sigmas.clone()

    explained = [
        _explained(policy, make(solver, steps), grid, solver, spectrum, by_euler)
        for policy in chosen
    ]
    return Explanation(
        steps,
        solver,
        tuple(grid.tolist()),
        tuple(evaluated[:-1].tolist()),
        tuple(spectrum.frequency.tolist()),
        tuple(explained),
    )


def _explained(
    chosen: ChosenPolicy,
    scheduler: Any,
    grid: Tensor,
    solver: str,
    spectrum: Spectrum,
    by_euler: Callable[[int], Tensor],
) -> Explained:
    _, policy, gamma = chosen
    cond_sigmas, deviations = _times(policy, gamma, scheduler)
    of_run = for_run(policy, scheduler.sigmas, solver)
    scales = [
        _of_evaluations(value_of, of_run, gamma, scheduler.sigmas, cond_sigmas)
        for value_of in (velocity_scale_of, latent_scale_of)
    ]
    told = torch.cat(cond_sigmas)
    factors = transfer(grid, told, spectrum.std, solver, *scales)
    error = float(spectrum.error(factors))
    return Explained(
        chosen.label if gamma == 1 else f"{chosen.label}@{gamma:g}",
        error,
        worth_steps(error, spectrum, by_euler),
        residual_noise(grid, told, solver, *scales),
        tuple(float(deviation) for deviation in deviations),
        tuple(told.tolist()),
        tuple(zip(spectrum.std.tolist(), factors.tolist(), strict=True)),
    )


def _times(policy: Policy, gamma: float, scheduler: Any) -> tuple[list[Tensor], list[Tensor]]:
    """t* of each evaluation and D of each but the first, [1] each, of a run on a blank picture."""
    nothing, text = torch.zeros(1, 1, 1, 1), TextConditions(torch.zeros(1, 1, 1))
    _, cond_sigmas, deviations = integrate(
        lambda latents, *_: torch.zeros_like(latents), scheduler, nothing, policy, gamma, text
    )
    return cond_sigmas, deviations


def _of_evaluations(
    value_of: Callable[[Policy, Tensor, Tensor, float], Tensor | None],
    policy: Policy,
    gamma: float,
    sigmas: Tensor,
    cond_sigmas: Sequence[Tensor],
) -> Tensor | None:
    """What a policy makes of the velocity of each evaluation, [evaluations]; None if nothing."""
    values = [
        value_of(policy, sigma, told, gamma)
        for sigma, told in zip(sigmas, cond_sigmas, strict=False)
    ]
    return (
        None if values[0] is None else torch.cat([value for value in values if value is not None])
    )


def explain_request(
    request: ExplainRequest, on_warning: Callable[[str], None] = lambda _: None
) -> Explanation:
    """Explain what a user asks for.

    Args:
        on_warning: told if a model will not fit, before its weights are read.

    Raises:
        InputError: for a policy that reads the picture, which there is none of; for settings that
            cannot be; and as `Outline.of`.
        AsyncDiffError: for a model or prompts that cannot be loaded.
    """
    request.check()
    spectrum = spectrum_of(request.spectrum)
    if not request.of_backbone:
        make, entry = of_shift(request), REGISTRY[DEFAULT_BACKBONE]
        steps, solver = request.steps or USUAL_STEPS, request.model.scheduler or "euler"
        return explain(make, steps, solver, parse_policies(request.policies, entry), spectrum)
    outline = Outline.of(request.model)
    make, entry, solver = of_backbone(request, outline), outline.entry, outline.scheduler
    steps = request.steps or entry.num_inference_steps
    found = explain(make, steps, solver, parse_policies(request.policies, entry), spectrum)
    if request.reliance is None:
        return found
    return replace(found, reliance=_reliance(request, outline, spectrum, on_warning))


def _reliance(
    request: ExplainRequest,
    outline: Outline,
    spectrum: Spectrum,
    on_warning: Callable[[str], None],
) -> tuple[Reliance, ...]:
    """Load the backbone, and measure how much it relies on the time it is told."""
    # what loads a model is not imported where none is
    from asyncdiff_cli.engine.processes import join
    from asyncdiff_cli.engine.schedules.reliance import measure_reliance, open_picture_set

    if outline.scheduler == TWO_EVALUATIONS:
        raise InputError(two_evaluations(f"the solver {outline.scheduler}"))
    source = request.dataset or default_source(request.model.name)
    texts = load_prompts(source, "train", request.data_dir, request.prompts)
    prompts = texts.draw(request.reliance or 0, 0)
    accelerator = join(request.model.device)
    with TemporaryDirectory(prefix="asyncdiff-") as directory:
        pictures = open_picture_set(
            outline, accelerator, prompts, request.steps, request.size, Path(directory), on_warning
        )
        return measure_reliance(pictures, spectrum)


def spectrum_of(path: Path | None) -> Spectrum:
    """The spectrum of a file; without one that of images in general.

    Raises:
        InputError: as `MeasuredSpectrum.load`.
    """
    return Spectrum.of_images() if path is None else MeasuredSpectrum.load(path).spectrum()


def of_shift(request: ExplainRequest) -> MakeScheduler:
    """Schedulers of no model, with a static shift."""
    shift = USUAL_SHIFT if request.shift is None else request.shift

    def make(solver: str, steps: int) -> Any:
        scheduler = shifted_scheduler(solver, shift, request.model.grid)
        scheduler.set_timesteps(steps)
        return scheduler

    return make


def of_backbone(request: ExplainRequest, outline: Outline) -> MakeScheduler:
    """Schedulers of a backbone, as it draws at a size in pixels. No weights are read.

    Raises:
        InputError, AsyncDiffError: for a size that there is not.
    """
    size = outline.size if request.size is None else request.size
    outline.check_side(size)
    with torch.device("meta"):
        parts = "transformer", "vae", "scheduler"
        adapter = empty_adapter(outline.configuration, outline.dtype, parts)
    config = adapter.pipe.scheduler.config
    latents = torch.empty(adapter.latents_shape(1, size, size))

    def make(solver: str, steps: int) -> Any:
        family = outline.entry.family
        adapter.pipe.scheduler = make_scheduler(solver, family, config, request.model.grid)
        adapter.set_timesteps(steps, latents)
        return adapter.pipe.scheduler

    return make
