"""Drawing a plan's files: noise, images, provenance, panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.drawing.canvas import Canvas, joined
from asyncdiff_cli.engine.drawing.panel import make_panel
from asyncdiff_cli.engine.drawing.parameters import PARAMETERS_CHUNK, parameters_of
from asyncdiff_cli.engine.drawing.plan import Batch, Panel, Plan
from asyncdiff_cli.engine.drawing.provenance import (
    PanelProvenance,
    Provenance,
    describe,
    save_apart,
)
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.per_image import EachPolicy
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.sampling.sample import SampleResult, sample

Named = tuple[str, Image.Image, Provenance]
"""An image with the name of its file."""


@dataclass(frozen=True)
class Written:
    """A file that is complete."""

    path: Path
    provenance: Provenance | PanelProvenance


def execute(
    plan: Plan,
    backbone: Backbone,
    out: Path,
    on_step: Callable[[StepState], None] | None = None,
    parameters: bool = False,
) -> Iterator[Written]:
    """Draw a plan, and tell of each file as soon as it is complete.

    Args:
        parameters: whether images say in words that other tools read what drew them.

    Raises:
        InputError: for a size that the backbone cannot draw, before anything is drawn.
        AsyncDiffError: for a failure while drawing or writing.
    """
    check_sizes(plan, backbone)
    drawn = (draw(batch, backbone, on_step) for batch in plan.batches)
    return write(plan, drawn, backbone, out, parameters)


def write(
    plan: Plan,
    drawn: Iterable[Sequence[Named]],
    backbone: Backbone,
    out: Path,
    parameters: bool = False,
) -> Iterator[Written]:
    """Write the images of a plan's batches, each as `draw` returns them, and its panels.

    Args:
        parameters: as of `execute`.

    Raises:
        AsyncDiffError: for a file that cannot be written.
    """

    def chunks_of(record: Provenance) -> dict[str, str]:
        return {PARAMETERS_CHUNK: parameters_of(record, backbone)} if parameters else {}

    waiting = {file for panel in plan.panels for row in panel.cells for file in row}
    cells: dict[str, tuple[Image.Image, Provenance]] = {}
    panels = list(plan.panels)
    for images in drawn:
        for file, image, provenance in images:
            if file in waiting:
                cells[file] = image, provenance
            if not plan.only_panels:
                path = save_apart(image, out / file, provenance, chunks_of(provenance))
                yield Written(path, provenance)
        while panels and all(file in cells for row in panels[0].cells for file in row):
            yield _write_panel(panels.pop(0), cells, out)


def check_sizes(plan: Plan, backbone: Backbone | Outline) -> None:
    """Every batch is of a size that the backbone can draw.

    Raises:
        InputError: for one that is not.
    """
    for height, width in {(b.settings.height, b.settings.width) for b in plan.batches}:
        backbone.check_size(height, width)


def draw(
    batch: Batch, backbone: Backbone, on_step: Callable[[StepState], None] | None = None
) -> list[Named]:
    """Draw a batch and return those of its images that have a file.

    A batch of an evaluation is encoded and decoded as there. Of others all prompts are encoded and
    all images decoded at once, as the stock pipeline does, whose bits a synchronous image has. The
    last bits depend on how many there are, so neither way can take the other's place.

    The noise comes from generators on the CPU, whatever the device, and is the same on each.
    """
    settings: dict[str, Any] = vars(batch.settings)
    evaluated = isinstance(batch.settings.policy, EachPolicy)
    prompts = [drawn.prompt for drawn in batch.drawn]
    generators = [torch.Generator().manual_seed(drawn.seed) for drawn in batch.drawn]
    try:
        text = _encoded(prompts, batch, backbone) if evaluated else {"prompts": prompts}
        kind = "latent" if evaluated else "pil"
        result = sample(
            backbone, generator=generators, output_type=kind, on_step=on_step, **text, **settings
        )
        images = _decoded(batch, backbone, result) if evaluated else result.images
    except torch.OutOfMemoryError:
        raise AsyncDiffError(
            f"out of memory with {len(generators)} images at once: use a smaller --batch-size or"
            " --size, --quantize or --offload"
        ) from None
    records = describe(backbone, result, batch.drawn, batch.settings)
    drawn = zip(batch.files, images, records, strict=True)
    return [(file, image, record) for file, image, record in drawn if file is not None]


def _encoded(prompts: Sequence[str], batch: Batch, backbone: Backbone) -> dict[str, Any]:
    """Prompts as an evaluation encodes them: each by itself, once for all policies in a batch."""
    encoded = Canvas(backbone, batch.settings.guidance_scale).encode(prompts)
    return joined([encoded[prompt] for prompt in prompts])


@torch.no_grad()
def _decoded(batch: Batch, backbone: Backbone, result: SampleResult) -> list[Image.Image]:
    """The images as an evaluation decodes them, a few at a time."""
    settings = batch.settings
    return backbone.adapter.decode(result.latents, settings.height, settings.width, "pil")


def _write_panel(
    panel: Panel, cells: dict[str, tuple[Image.Image, Provenance]], out: Path
) -> Written:
    """Write a panel, and forget its cells."""
    rows = [[cells.pop(file) for file in row] for row in panel.cells]
    image = make_panel(
        [[image for image, _ in row] for row in rows],
        columns=panel.columns or [f"γ = {plain(record.gamma)}" for _, record in rows[0]],
        rows=panel.rows or [f"seed {row[0][1].seed}" for row in rows],
        title="" if panel.rows else rows[0][0][1].prompt,
    )
    provenance = PanelProvenance(
        cells=tuple(tuple(record for _, record in row) for row in rows),
        columns=panel.columns,
        rows=panel.rows,
    )
    return Written(save_apart(image, out / panel.file, provenance), provenance)
