"""Panels of the images that an evaluation kept: the paper's Figures 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.registry import BASELINE, BackboneEntry
from asyncdiff_cli.engine.drawing.panel import LABEL, make_panel
from asyncdiff_cli.engine.drawing.parameters import (
    PARAMETERS_CHUNK,
    parameters_chunk,
    shared_parameters,
)
from asyncdiff_cli.engine.drawing.provenance import (
    PanelProvenance,
    Provenance,
    read_provenance,
    text_chunks,
)
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.setting import Setting, labels
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.pictures import read_picture
from asyncdiff_cli.engine.policies.modules import MODULES, main_policy
from asyncdiff_cli.engine.text import shortened

PANEL_ROWS = 6


class StorePanel(NamedTuple):
    """A panel with what is written into its file."""

    image: Image.Image
    provenance: PanelProvenance
    chunks: Mapping[str, str]
    """The words for other tools, of what all its images say that they were drawn with."""


def store_panel(
    store: Store,
    prompt_ids: Sequence[int] | None = None,
    settings: Sequence[Setting] | None = None,
    parameters: bool = True,
) -> StorePanel:
    """A row per prompt, a column per setting, the same noise along a row.

    Args:
        prompt_ids: places of prompts; default the first few whose images are kept.
        settings: default all, the baseline first, with one number of steps after the other.
        parameters: whether it says in words that other tools read what drew it.

    Raises:
        InputError: if images were not kept, or not of these.
        AsyncDiffError: if a file that was kept is missing.
    """
    rows = [row for row in store.read(["prompt", "image"]).to_pylist() if row["image"]]
    kept: dict[tuple[int, Setting], str] = {}
    prompts: dict[int, str] = {}
    for row in rows:
        kept.setdefault((row["prompt_id"], Setting.of(row)), row["image"])
        prompts[row["prompt_id"]] = row["prompt"]
    columns = list(settings or sorted({s for _, s in kept}, key=_place))
    places = list(prompt_ids if prompt_ids is not None else sorted(prompts)[:PANEL_ROWS])
    for cell in ((place, setting) for place in places for setting in columns):
        if cell not in kept:
            raise InputError(
                f"{store.path} keeps no image of prompt {cell[0]} by {cell[1].label}: evaluate"
                " into another --out with a larger --images"
            )
    if not places or not columns:
        raise InputError(f"{store.path} keeps no images: evaluate into another --out with --images")
    cells = [[_open(store, kept[place, setting]) for setting in columns] for place in places]
    _check_sizes(store, [cell for row in cells for cell in row])
    above = tuple(labels(columns))
    sides = tuple(shortened(prompts[place], LABEL) for place in places)
    panel = make_panel([[cell.image for cell in row] for row in cells], above, sides, "")
    records = tuple(tuple(cell.record for cell in row) for row in cells)
    texts = [cell.parameters for row in cells for cell in row if parameters]
    return StorePanel(
        panel,
        PanelProvenance(cells=records, columns=above, rows=sides),
        parameters_chunk(shared_parameters(texts)),
    )


def _place(setting: Setting) -> tuple[int, int, str, float]:
    order = [BASELINE, *MODULES]
    name = setting.policy.partition(":")[0]
    rank = order.index(name) if name in order else len(order)
    return setting.steps, rank, setting.policy, setting.gamma


class _Cell(NamedTuple):
    name: str
    image: Image.Image
    record: Provenance
    parameters: str


def _open(store: Store, name: str) -> _Cell:
    path = store.image(name)
    if not path.is_file():
        raise AsyncDiffError(f"{path} is missing: merge copies images, moving parts does not")
    record = read_provenance(path)
    if isinstance(record, PanelProvenance):
        raise AsyncDiffError(f"{path} is a panel, and no image of an evaluation")
    return _Cell(name, read_picture(path), record, text_chunks(path).get(PARAMETERS_CHUNK, ""))


def _check_sizes(store: Store, cells: Sequence[_Cell]) -> None:
    """Refuse an image of another size than the first. Raises: AsyncDiffError."""
    first = cells[0]
    for cell in cells:
        if cell.image.size != first.image.size:
            own, other = ("×".join(map(str, c.image.size)) for c in (cell, first))
            raise AsyncDiffError(
                f"{store.image(cell.name)} has {own} pixels, and {first.name} {other}: one of them"
                " is not the image that was kept; evaluate into another --out"
            )


def figure_5(entry: BackboneEntry) -> str:
    """The columns of the paper's Figure 5, as `eval --policies`, with what a backbone has."""
    name, lifted = main_policy(entry), ["lifted"] if "lifted" in entry.modules else []
    return ",".join([BASELINE, f"{name}@0.5", name, f"{name}@2", *lifted])


def check_panel(
    prompts: Sequence[str] | None,
    store: Path | None,
    rows: str | None,
    policies: str | None,
    out: Path,
    model: ModelChoice = ModelChoice(),  # noqa: B008 - it is frozen
) -> None:
    """The options of `asyncdiff panel` go together.

    Raises:
        InputError: if they do not, or `out` is not a .png.
    """
    if bool(prompts) == (store is not None):
        raise InputError("give either PROMPTs to draw, or --store with images that are drawn")
    if store is not None and policies is not None:
        raise InputError("--store shows what was drawn: leave out --policies")
    if store is not None and model != ModelChoice():
        raise InputError("--store shows what was drawn: leave out the options of a model")
    if store is None and rows is not None:
        raise InputError("--rows chooses among the prompts of a --store")
    if out.suffix.lower() != ".png":
        raise InputError(f"a panel is a .png, not {out}")
