"""What a training and an evaluation load alike, in the order that memory needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from accelerate import Accelerator

from asyncdiff_cli.engine.backbones.memory.advice import advise, evaluation_work
from asyncdiff_cli.engine.backbones.memory.footprint import Company
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.encoding import encode_first
from asyncdiff_cli.engine.rewards.group import Group


def open_canvas(
    outline: Outline,
    accelerator: Accelerator,
    guidance_scale: float | None,
    size: int | None,
    batch: int,
    prompts: Iterable[str],
    directory: Path,
    scorers: Sequence[Group],
    company: Company,
    ahead: int | None = None,
    on_warning: Callable[[str], None] = lambda _: None,
) -> Canvas:
    """Say whether the model fits, encode prompts, load the rest, and place what scores.

    Args:
        guidance_scale, size: of what is drawn; None is the backbone's.
        batch: images at once.
        prompts, directory, ahead: as of `encode_first`.
        scorers: what waits on the CPU until the text encoders are gone.
        company: the same, for the estimate of memory.
        on_warning: told by the main process if the model will not fit, before it is loaded.

    Raises:
        InputError, AsyncDiffError: as `encode_first`.
    """
    work = evaluation_work(outline, batch, size, guidance_scale)
    if accelerator.is_main_process and (
        warning := advise(outline, work, encode_first=True, company=company)
    ):
        on_warning(warning)
    canvas = encode_first(outline, accelerator, guidance_scale, size, prompts, directory, ahead)
    for group in scorers:
        group.place()
    return canvas
