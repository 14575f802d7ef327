"""`asyncdiff inspect`: show what an image was drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options

if TYPE_CHECKING:
    from asyncdiff_cli.engine.drawing.provenance import PanelProvenance, Provenance


def inspect(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A PNG file.")],
    json: options.Json = False,
) -> None:
    """Print what an image or a panel was drawn from.

    Of an image that another tool made, what its text chunk `parameters` says.
    """
    from asyncdiff_cli.engine.drawing.parameters import read_record
    from asyncdiff_cli.engine.drawing.provenance import Provenance

    record = read_record(image)
    if isinstance(record, dict):
        render.as_json(record) if json else render.fields(record)
    elif json:
        render.as_json(loads(record.model_dump_json()))  # null for what is no number
    elif isinstance(record, Provenance):
        render.fields(_image(record))
    else:
        render.fields(_panel(record))


def _image(record: Provenance) -> dict[str, Any]:
    """An image's record as fields to print."""
    values = record.model_dump(exclude={"batch", "index"})
    for name in ("cond_sigmas", "deviations"):
        values[name] = _numbers(values[name])
    for name in {"policy", "versions", "image", "control"} & values.keys():
        values[name] = render.pairs(values[name])
    values["lora"] = ", ".join(record.lora) or None
    values["compile"] = "yes" if record.compile else None
    place = f"{record.index + 1} of {len(record.batch)}"
    return {"prompt": record.prompt, "seed": record.seed, "place in batch": place, **values}


def _panel(record: PanelProvenance) -> dict[str, Any]:
    """A panel's record as fields to print: what its images share, and its rows and columns."""
    if record.stepwise:
        grid = {"sigmas": _numbers(record.cells[0][0].cond_sigmas)}
        return {"sheet": "x̂0 after its steps", **_image(record.cells[-1][0]), **grid}
    columns = record.cells[0]
    values = _image(columns[0])
    for name in ("gamma", "cond_sigmas", "place in batch"):
        del values[name]
    values["seed"] = ", ".join(str(row[0].seed) for row in record.cells)
    values["gamma"] = _numbers(cell.gamma for cell in columns)
    for cell in columns:
        values[f"cond_sigmas, γ {cell.gamma:g}"] = _numbers(cell.cond_sigmas)
    return values


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
