"""`asyncdiff export`: a store's images as the scorer of a benchmark reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from asyncdiff_cli import render
from asyncdiff_cli.commands import options


def export(
    store: options.Exported,
    layout: options.Layout,
    out: Annotated[Path, options.directory_out("A new directory, with a folder for each policy.")],
    prompts: options.LocalPrompts = None,
    data_dir: options.DataDir = None,
    json: options.Json = False,
) -> None:
    """Write the images of an evaluation as the official scorer of a benchmark reads them.

    The store is one of eval --dataset BENCHMARK, with the images of all prompts. What the scorer
    writes comes back by import-scores.

    asyncdiff export evals/flux-geneval --layout geneval --out geneval
    """
    from asyncdiff_cli.engine.evaluation.export import plan_export, write_export
    from asyncdiff_cli.engine.evaluation.store import Store

    planned = plan_export(Store(store), layout, data_dir, prompts)
    with render.status("Writing the images"):
        folders = write_export(planned, out)
    for note in planned.notes:
        render.warning(note)
    if planned.partial:
        render.warning(f"{planned.partial} prompts are not drawn by all policies yet: left out")
    if json:
        render.as_json({"prompts": planned.prompts, "folders": [str(path) for path in folders]})
        return
    for path in folders:
        render.line(str(path))
