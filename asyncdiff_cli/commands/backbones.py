"""`asyncdiff backbones`: list what can draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.engine.backbones.registry import REGISTRY, BackboneEntry

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.weights import Presence


def backbones(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=callbacks.complete_backbone,
            help="One backbone in full; for mini also the words that it knows.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """List the backbones: defaults, licence, size, and whether they are on this disk."""
    from asyncdiff_cli.engine.backbones.vocabulary import Vocabulary
    from asyncdiff_cli.engine.backbones.weights import presence
    from asyncdiff_cli.engine.checks import check_choice

    if name is None:
        found = {entry: presence(entry) for entry in REGISTRY.values()}
        if json:
            render.as_json({"backbones": [_values(e, p) for e, p in found.items()]})
        else:
            headings = "name", "family", "defaults", "licence", "gated", "on this disk"
            render.table(headings, [_row(e, p) for e, p in found.items()])
        return

    from asyncdiff_cli.engine.prompts.mini import EXAMPLES

    check_choice("backbone", name, REGISTRY)
    values = _values(REGISTRY[name], where := presence(REGISTRY[name], ask_hub=True))
    vocabulary = Vocabulary.load(where.directory)
    if json:
        render.as_json(
            {**values, "vocabulary": vocabulary and vocabulary.model_dump(exclude_unset=True)}
        )
        return
    values["bytes"] = _size(where)
    values["modules"] = ", ".join(values["modules"])
    render.fields(values)
    if vocabulary:
        render.fields({name: ", ".join(several) for name, several in EXAMPLES.items()})
        things = (f"{n} ({', '.join(o)})" if o else n for n, o in vocabulary.objects.items())
        render.fields({"objects": ", ".join(things), "colours": ", ".join(vocabulary.colours)})


def _values(entry: BackboneEntry, where: Presence) -> dict[str, Any]:
    return {
        **vars(entry),
        "modules": {name: str(path) for name, path in entry.modules.items()},
        "size": where.pixels,
        "present": where.directory is not None,
        "directory": where.directory and str(where.directory),
        "bytes": where.bytes,
    }


def _row(entry: BackboneEntry, where: Presence) -> list[str]:
    defaults = (
        f"{entry.num_inference_steps} steps",
        f"guidance {entry.guidance_scale:g}",
        f"{where.pixels} px" if where.pixels else "",
        f"{entry.dtype} on CUDA",
        f"policy {entry.policy}",
    )
    return [
        entry.name,
        entry.family,
        ", ".join(filter(None, defaults)),
        entry.licence,
        "yes" if entry.gated else "no",
        _size(where) if where.directory else where.reason,
    ]


def _size(where: Presence) -> str:
    return f"unknown: {where.reason}" if where.bytes is None else render.size(where.bytes)
