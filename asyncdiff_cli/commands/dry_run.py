"""What the dry runs of commands share that load a model: their options, and how it is told of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options
from asyncdiff_cli.commands.groups import in_panel


@in_panel(options.OUT)
@dataclass(frozen=True)
class DryRunOptions:
    """Whether nothing is drawn, but told of."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; tell what would be drawn.")
    ] = False
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="As --dry-run, and tell the memory that it needs; in sample also the time, of a"
            " small model, which takes about as long as that draws.",
        ),
    ] = False

    @property
    def asked(self) -> bool:
        """Whether either is given."""
        return self.dry_run or self.measure


def show_cost(found: Mapping[str, Any], names: Sequence[str], **said: str) -> None:
    """Print a dry run of what draws many images.

    Args:
        names: the values that are printed as they are.
        said: what is said of others.
    """
    drawn = {name: found[name] for name in ("guidance", "size", "batch_size")}
    render.fields(
        {
            **{name.replace("_", " "): found[name] for name in names},
            **said,
            "settings": render.pairs(drawn),
            **needs_shown(found),
        }
    )
    if found["advice"]:
        render.warning(found["advice"])


def needs_shown(found: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a dry run about its model, as `ModelNeeds.to_dict` has them."""
    held, peak = found["weights_bytes"], found["memory_bytes"]
    return {
        "backbone": f"{found['backbone']}, {found['dtype']} on {found['device']}",
        "model": render.pairs({k: v for k, v in found["model"].items() if v and k not in found}),
        "weights": f"{render.size(held) if held else 'unknown'} ({found['weights_reason']})",
        "memory": f"{render.size(peak) if peak else 'unknown'} ({found['memory_reason']})",
    }
