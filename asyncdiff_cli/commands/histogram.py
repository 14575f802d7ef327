"""`asyncdiff histogram`: which deviations a module chooses, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.commands.stores import draw

if TYPE_CHECKING:
    from asyncdiff_cli.engine.evaluation.comparison import Comparison


@in_panel(options.WHAT)
def histogram(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|STORE…",
            callback=callbacks.read_paths,
            help="Training runs, and stores of eval or sweep.",
        ),
    ],
    policy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of stores. (default: all that choose by the image)"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Prompts that a run's module is evaluated on."),
    ] = None,
    device: options.Device = None,
    out: Annotated[Path, options.file_out("A .png, .svg or .pdf.")] = Path("histogram.png"),
    json: options.Json = False,
) -> None:
    """Chart the distribution of the deviation at every step: the paper's Figures 3 and 4.

    A run's module is evaluated first, into RUN/evaluation, unless that is there. The numbers are
    written beside FILE as .csv, and the chart also as .svg.

    asyncdiff histogram runs/mini runs/mini-lifted --limit 200
    """
    from asyncdiff_cli.engine.evaluation.store import Store
    from asyncdiff_cli.engine.figures.distributions import (
        RUN_EVALUATION,
        distributions,
        is_store,
        told_apart,
        write_histogram,
    )
    from asyncdiff_cli.engine.figures.formats import check_suffix
    from asyncdiff_cli.engine.files import kept_apart

    check_suffix(out)
    sources = [Store(path) if is_store(path) else _of_run(path, limit, device) for path in paths]
    stores = []
    for path, name, source in zip(paths, told_apart(paths), sources, strict=True):
        if isinstance(source, Store):
            stores.append((name, source))
        elif (drawn := draw(source, path / RUN_EVALUATION)) is not None:
            stores.append((name, drawn[0]))
    found = distributions(stores, policy)
    written = write_histogram(found, out)
    if warning := kept_apart(out, written[0]):
        render.warning(warning)
    if json:
        render.as_json(
            {
                "files": [str(file) for file in written],
                "policies": {
                    label: {
                        "n": len(result.deviations),
                        "mean": result.deviations.mean(0).tolist(),
                        "std": result.deviations.std(0).tolist(),
                        "at_bound": result.at_bound.tolist(),
                        "step_sizes": result.step_sizes.tolist(),
                    }
                    for label, result in found.items()
                },
            }
        )
        return
    for file in written:
        render.line(str(file))


def _of_run(path: Path, limit: int | None, device: str | None) -> Comparison:
    """What evaluates a run's module, imported only where that is to be done."""
    from asyncdiff_cli.engine.backbones.choice import ModelChoice
    from asyncdiff_cli.engine.evaluation.comparison import comparison_of_run

    return comparison_of_run(path, limit, ModelChoice(device=device))
