"""`asyncdiff spectrum`: how much of a model's pictures there is at each scale of detail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncdiff_cli.commands.schedules import SpectrumOptions, make

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice
    from asyncdiff_cli.engine.schedules.job import Way
    from asyncdiff_cli.engine.schedules.request import SpectrumRequest


def spectrum(wanted: SpectrumOptions) -> None:
    """Measure how much of a model's clean latents there is at each scale of detail.

    Pictures are drawn in many steps without a deviation, and what is measured goes into a small
    file. `--policy spectral:FILE.json` derives the schedule that is best for it, and `explain
    --spectrum FILE.json` tells what policies do to it. A command that was killed goes on where it
    stopped, to the same bytes.

    asyncdiff spectrum --backbone mini --out mini-spectrum.json
    """
    from asyncdiff_cli.engine.schedules.request import SpectrumRequest, drawing, parse_drawn_request

    given = {**vars(wanted.prompts), **vars(wanted.sampling)}
    request = parse_drawn_request(SpectrumRequest, wanted.model, out=wanted.out, **given)
    make(wanted, request, wanted.model, drawing, _way)


def _way(request: SpectrumRequest, choice: ModelChoice) -> Way:
    from asyncdiff_cli.engine.schedules.measure import spectrum_way

    return spectrum_way(request, choice)
