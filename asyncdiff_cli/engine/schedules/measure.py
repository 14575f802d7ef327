"""`asyncdiff spectrum`: how much of a model's clean latents there is at each scale of detail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.downloads import OnProgress
from asyncdiff_cli.engine.policies.given import Synchronous
from asyncdiff_cli.engine.policies.observation import unpacked
from asyncdiff_cli.engine.policies.spectra import Rows, Spectrum
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.schedules.job import MeasuringJob, OnLine, Way, Workbench, open_measuring
from asyncdiff_cli.engine.schedules.request import SpectrumRequest, command_line, drawing

MEASUREMENT = "measurement"
"""How a file says that it was made like this."""
BATCHES = "batches"
"""The name of what was measured, in a journal."""


def open_spectrum(
    request: SpectrumRequest,
    choice: ModelChoice,
    directory: Path,
    on_warning: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress | None = None,
) -> MeasuringJob:
    """Open the measurement of a backbone's spectrum.

    Args, Raises: as `open_measuring`.
    """
    command = command_line(["spectrum"], choice, request.given())
    way = Way(MeasuredSpectrum, {"by": MEASUREMENT}, command, drawing, measure_spectrum)
    return open_measuring(request, choice, way, directory, on_warning, on_progress)


def measure_spectrum(bench: Workbench, on_line: OnLine) -> MeasuredSpectrum:
    """Draw without a deviation, and measure the last latents of each batch."""
    pictures, canvas = bench.pictures, bench.pictures.canvas
    backbone, side = canvas.backbone, canvas.pixels
    token_grid = backbone.adapter.token_grid(side, side)
    measured: list[tuple[int, Rows]] = bench.journal.get(BATCHES, [])
    for result in pictures.drawn_by(Synchronous(), begin=len(measured)):
        latents = unpacked(result.latents, token_grid)
        measured.append((len(latents), Spectrum.of_latents(latents).banded().rows))
        bench.journal.keep(BATCHES, measured)
        on_line(f"{sum(n for n, _ in measured)} of {len(pictures.prompts)} pictures measured")
    return MeasuredSpectrum.of(
        mean_spectrum(measured),
        backbone=backbone.location,
        revision=backbone.revision,
        steps=pictures.steps,
        guidance_scale=canvas.scale,
        height=side,
        width=side,
        made=bench.made,
    )


def mean_spectrum(measured: Sequence[tuple[int, Rows]]) -> Spectrum:
    """Average the power of batches, each with its images' number, at the same frequencies."""
    spectra = [Spectrum.of_rows(rows) for _, rows in measured]
    images = torch.tensor([count for count, _ in measured], dtype=torch.float64)
    power = torch.stack([spectrum.std.square() for spectrum in spectra])
    mean = (images[:, None] * power).sum(0) / images.sum()
    return Spectrum(spectra[0].frequency, mean.sqrt(), spectra[0].weight)
