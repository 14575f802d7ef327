"""`asyncdiff panel`: images of several policies beside one another."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.commands.stores import draw


@in_panel(options.WHAT)
def panel(
    *,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT…", help="A row each.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            callback=callbacks.read_paths,
            help="Show the images that an evaluation kept, and draw nothing.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(metavar="N1,N2,…", help="Which prompts of the store. (default: the first 6)"),
    ] = None,
    seed: options.Seed = 42,
    policies: Annotated[
        str | None,
        options.policies(
            "The columns, as in eval. (default: baseline; the backbone's module or own policy, at"
            " γ = 0.5, 1 and 2; and lifted where there is one)"
        ),
    ] = None,
    sampling: options.SamplingOptions,
    model: options.Model,
    parameters: options.Parameters = True,
    out: Annotated[Path, options.file_out("A .png.")] = Path("panel.png"),
    json: options.Json = False,
) -> None:
    """Draw PROMPTs with several policies from the same noise: the paper's Figures 5 and 6.

    asyncdiff panel "a fox" "a castle" --policies baseline,fixed:0.5,velocity-scale
    """
    from asyncdiff_cli.engine.drawing.provenance import save_apart
    from asyncdiff_cli.engine.evaluation.store import Store
    from asyncdiff_cli.engine.fields import parse_numbers
    from asyncdiff_cli.engine.figures.gallery import check_panel, figure_5, store_panel
    from asyncdiff_cli.engine.files import kept_apart

    check_panel(prompts, store, rows, policies, out, model)
    if store is not None:
        kept = parse_numbers("--rows", rows, int) or None
        made = store_panel(Store(store), kept, parameters=parameters)
    else:
        from asyncdiff_cli.engine.backbones.registry import provisional_entry
        from asyncdiff_cli.engine.evaluation.comparison import parse_comparison

        wanted = parse_comparison(
            model, policies or figure_5(provisional_entry(model.name)), texts=prompts, seed=seed,
            **vars(sampling), rewards="noise", kept_images=len(prompts or ()),
            parameters=parameters,
        )  # fmt: skip
        with TemporaryDirectory() as directory:
            drawn = draw(wanted, Path(directory) / "store")
            if drawn is None:
                return
            made = store_panel(drawn[0], range(len(prompts or ())))
    written = save_apart(made.image, out, made.provenance, made.chunks)
    if warning := kept_apart(out, written):
        render.warning(warning)
    if json:
        cells = made.provenance.model_dump(mode="json")["cells"]
        render.as_json({"path": str(written), "cells": cells})
    else:
        render.line(str(written))
