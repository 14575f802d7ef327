"""Drawing a plan's files: noise, images, provenance, panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from PIL import Image

from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.image_pipelines import EDITING
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.drawing.canvas import Canvas, joined
from asyncdiff_cli.engine.drawing.panel import make_panel
from asyncdiff_cli.engine.drawing.parameters import (
    parameters_chunk,
    parameters_of,
    shared_parameters,
)
from asyncdiff_cli.engine.drawing.plan import Batch, Panel, Plan
from asyncdiff_cli.engine.drawing.planning import control_nets, from_images, with_control_net
from asyncdiff_cli.engine.drawing.provenance import (
    PanelProvenance,
    Provenance,
    describe,
    save_apart,
)
from asyncdiff_cli.engine.drawing.settings import FROM_IMAGES, BatchSettings
from asyncdiff_cli.engine.drawing.stepwise import MOST, Estimates, Frames, make_sheet, tiles
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.per_image import EachPolicy
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.sampling.attach import Trace
from asyncdiff_cli.engine.sampling.from_image import sample_from_image
from asyncdiff_cli.engine.sampling.sample import SampleResult, sample


class Drawing(NamedTuple):
    """An image with the name of its file, and x̂0 after its steps where that is shown."""

    file: str
    image: Image.Image
    record: Provenance
    frames: Frames = MappingProxyType({})


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
        parameters: whether images and panels say in words that other tools read what drew them.

    Raises:
        InputError: for a size that the backbone cannot draw, before anything is drawn.
        AsyncDiffError: for a failure while drawing or writing.
    """
    check_sizes(plan, backbone)
    drawn = (draw(batch, backbone, on_step) for batch in plan.batches)
    return write(plan, drawn, backbone, out, parameters)


def write(
    plan: Plan,
    drawn: Iterable[Sequence[Drawing]],
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

    def chunks_of(*records: Provenance) -> dict[str, str]:
        texts = [parameters_of(record, backbone) for record in records if parameters]
        return parameters_chunk(texts[0] if len(texts) == 1 else shared_parameters(texts))

    waiting = {file for panel in plan.panels for row in panel.cells for file in row}
    cells: dict[str, Drawing] = {}
    panels = list(plan.panels)
    for images in drawn:
        for drawing in images:
            file, image, record, _ = drawing
            if file in waiting:
                cells[file] = drawing
            if not plan.only_panels:
                yield Written(save_apart(image, out / file, record, chunks_of(record)), record)
        while panels and all(file in cells for row in panels[0].cells for file in row):
            yield _write_panel(panels.pop(0), cells, out, chunks_of)


def check_sizes(plan: Plan, backbone: Backbone | Outline) -> None:
    """Every batch is of a size that the backbone can draw.

    Raises:
        InputError: for one that is not.
    """
    for height, width in {(b.settings.height, b.settings.width) for b in plan.batches}:
        backbone.check_size(height, width)


def opened_for(plan: Plan, outline: Outline) -> tuple[Plan, Outline]:
    """A plan with what it leaves to the pipeline, and the pipeline that it is drawn by.

    Raises:
        InputError, AsyncDiffError: as `from_images`, `with_control_net` and
            `Outline.with_control_net`, and for a pipeline that draws from no image.
    """
    if any(batch.settings.image for batch in plan.batches):
        outline = outline.for_image()
    edits = outline.source.pipeline_class in EDITING
    plan = from_images(plan, outline.scheduler, edits)
    if place := next(filter(None, control_nets(plan)), None):
        outline, net = outline.with_control_net(place)
        plan = with_control_net(plan, net)
    return plan, outline


def draw(
    batch: Batch, backbone: Backbone, on_step: Callable[[StepState], None] | None = None
) -> list[Drawing]:
    """Draw a batch and return those of its images that have a file.

    A batch of an evaluation is encoded and decoded as there. Of others all prompts are encoded and
    all images decoded at once, as the stock pipeline does, whose bits a synchronous image has. The
    last bits depend on how many there are, so neither way can take the other's place.

    The noise comes from generators on the CPU, whatever the device, and is the same on each.
    """
    estimates = Estimates(backbone.dtype, MOST)

    def see(state: StepState) -> None:
        if batch.stepwise:
            estimates.see(state)
        if on_step is not None:
            on_step(state)

    try:
        images, told = _draw(batch, backbone, see)
    except torch.OutOfMemoryError:
        raise AsyncDiffError(
            f"out of memory with {len(batch.drawn)} images at once: use a smaller --batch-size or"
            " --size, --quantize or --offload"
        ) from None
    records = describe(backbone, told, batch.drawn, batch.settings)
    size = batch.settings.height, batch.settings.width
    return [
        Drawing(file, images[i], records[i], tiles(estimates.decode(backbone, i, *size)))
        for i, file in enumerate(batch.files)
        if file is not None
    ]


def _draw(
    batch: Batch, backbone: Backbone, on_step: Callable[[StepState], None]
) -> tuple[list[Image.Image], SampleResult | Trace]:
    """The images of a batch, and what they were conditioned on."""
    settings = batch.settings
    prompts = [drawn.prompt for drawn in batch.drawn]
    generators = [torch.Generator().manual_seed(drawn.seed) for drawn in batch.drawn]
    if any(getattr(settings, name) for name in FROM_IMAGES):
        own = {**settings.arguments, **_images(settings), "on_step": on_step}
        del own["share_first"]
        return sample_from_image(backbone, own.pop("image"), prompts, generators, **own)
    evaluated = isinstance(settings.policy, EachPolicy)
    text = _encoded(prompts, batch, backbone) if evaluated else {"prompts": prompts}
    kind = "latent" if evaluated else "pil"
    result = sample(
        backbone,
        generator=generators,
        output_type=kind,
        on_step=on_step,
        **text,
        **settings.arguments,
    )
    return _decoded(batch, backbone, result) if evaluated else result.images, result


def _images(settings: BatchSettings) -> dict[str, Any]:
    """What is drawn from, as arguments of `sample_from_image`."""
    image, control, size = settings.image, settings.control, (settings.width, settings.height)
    return {
        "image": image and image.fitted(*size),
        "strength": image and image.strength,
        "control_image": control and control.fitted(*size),
        "control_scale": control and control.scale,
    }


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
    panel: Panel,
    cells: dict[str, Drawing],
    out: Path,
    chunks_of: Callable[..., dict[str, str]],
) -> Written:
    """Write a panel, and forget its cells."""
    rows = [[cells.pop(file) for file in row] for row in panel.cells]
    provenance = PanelProvenance(
        cells=tuple(tuple(cell.record for cell in row) for row in rows),
        columns=panel.columns,
        rows=panel.rows,
        stepwise=panel.stepwise,
    )
    image = _sheet(panel, rows) if panel.stepwise else _panel(panel, rows)
    chunks = chunks_of(*(cell.record for row in rows for cell in row))
    return Written(save_apart(image, out / panel.file, provenance, chunks), provenance)


def _panel(panel: Panel, rows: Sequence[Sequence[Drawing]]) -> Image.Image:
    return make_panel(
        [[cell.image for cell in row] for row in rows],
        columns=panel.columns or [f"γ = {plain(cell.record.gamma)}" for cell in rows[0]],
        rows=panel.rows or [f"seed {row[0].record.seed}" for row in rows],
        title="" if panel.rows else rows[0][0].record.prompt,
    )


def _sheet(panel: Panel, rows: Sequence[Sequence[Drawing]]) -> Image.Image:
    return make_sheet([(cell.frames, cell.record) for (cell,) in rows], panel.rows or ())
