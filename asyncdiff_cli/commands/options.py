"""The options that several commands share, and what the shell completes them with."""

from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli.engine.registry import REGISTRY, SCHEDULER_CLASSES


def complete_backbone(incomplete: str) -> list[tuple[str, str]]:
    """Backbones known by name."""
    return [(name, e.licence) for name, e in REGISTRY.items() if name.startswith(incomplete)]


def complete_scheduler(incomplete: str) -> list[str]:
    """Schedulers known by name."""
    return [name for name in SCHEDULER_CLASSES if name.startswith(incomplete)]


def complete_dtype(incomplete: str) -> list[str]:
    """Dtypes by their short names."""
    return [name for name in ("fp32", "bf16", "fp16") if name.startswith(incomplete)]


def complete_reward(incomplete: str) -> list[str]:
    """Rewards known by name, also after those that are already named."""
    from asyncdiff_cli.engine.rewards import NAMES

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in NAMES if name.startswith(last)]


def complete_recipe(incomplete: str) -> list[str]:
    """Recipes that come with the package."""
    from asyncdiff_cli.engine.recipes import names

    return [name for name in names() if name.startswith(incomplete)]


BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        autocompletion=complete_backbone,
        help=f"{', '.join(REGISTRY)}, a pipeline directory or a hub repository. (default: mini)",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(metavar="REV", help="Branch, tag or commit of the repository."),
]
ModelPath = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Load the backbone from this directory."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=complete_scheduler,
        help=f"{', '.join(SCHEDULER_CLASSES)}. (default: the model's own)",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N. (default: CUDA where there is one)"),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="DTYPE",
        autocompletion=complete_dtype,
        help="fp32, bf16 or fp16. (default: fp16 on CUDA, else fp32)",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
