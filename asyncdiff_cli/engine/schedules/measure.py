"""`asyncdiff spectrum`: how much of a model's clean latents there is at each scale of detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.policies.given import Synchronous
from asyncdiff_cli.engine.policies.observation import unpacked
from asyncdiff_cli.engine.policies.spectra import Rows, Spectrum
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.schedules.job import OnLine, Way, Workbench
from asyncdiff_cli.engine.schedules.request import SpectrumRequest, command_line, drawing

MEASUREMENT = "measurement"
"""How a file says that it was made like this."""
BATCHES = "batches"
"""The name of what was measured, in a journal."""
MeasuredBatch: TypeAlias = tuple[int, Rows, list[float]]
"""The number of pictures, their spectrum, and the mean of each channel."""


def spectrum_way(request: SpectrumRequest, choice: ModelChoice) -> Way:
    """The measurement of a backbone's spectrum."""
    command = command_line(["spectrum"], choice, request.given())
    return Way(MeasuredSpectrum, {"by": MEASUREMENT}, command, drawing, measure_spectrum)


def measure_spectrum(bench: Workbench, on_line: OnLine) -> MeasuredSpectrum:
    """Draw without a deviation, and measure the last latents of each batch."""
    pictures, canvas = bench.pictures, bench.pictures.canvas
    backbone, side = canvas.backbone, canvas.pixels
    token_grid = backbone.adapter.token_grid(side, side)
    measured: list[MeasuredBatch] = bench.journal.get(BATCHES, [])
    for result in pictures.drawn_by(Synchronous(), begin=len(measured)):
        latents = unpacked(result.latents, token_grid)
        rows = Spectrum.of_latents(latents).banded().rows
        measured.append((len(latents), rows, latents.double().mean((0, 2, 3)).tolist()))
        bench.journal.keep(BATCHES, measured)
        on_line(
            f"{sum(batch[0] for batch in measured)} of {len(pictures.prompts)} pictures measured"
        )
    return MeasuredSpectrum.of(
        spread(measured),
        backbone=backbone.location,
        revision=backbone.revision,
        steps=pictures.steps,
        guidance_scale=canvas.scale,
        height=side,
        width=side,
        made=bench.made,
    )


def spread(measured: Sequence[MeasuredBatch]) -> Spectrum:
    """Average the power of batches at the same frequencies, about the mean of each channel.

    The mean is the same in all pictures: it is no detail, and would outweigh all there is.
    """
    counts, rows, means = zip(*measured, strict=True)
    spectra = [Spectrum.of_rows(each) for each in rows]
    share = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
    power = (share * torch.stack([spectrum.std.square() for spectrum in spectra])).sum(0)
    mean = (share * torch.tensor(means, dtype=torch.float64)).sum(0)
    components = 1 / spectra[0].weight[0]  # one of them is the mean of a picture
    power[0] = (power[0] - components * mean.square().mean()).clamp(min=0)
    return Spectrum(spectra[0].frequency, power.sqrt(), spectra[0].weight)
