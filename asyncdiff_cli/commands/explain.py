"""`asyncdiff explain`: what a policy does to detail and to noise, without drawing anything."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.engine.collector import collector_at_rest

if TYPE_CHECKING:
    from asyncdiff_cli.engine.figures.explanation import Explained
    from asyncdiff_cli.engine.schedules.reliance import Reliance

POLICIES = "baseline,fixed:0.5,fixed:1"
MEANINGS = (
    "error: mean square of what comes out less what is there, over all scales; 0 is exact",
    "worth: the steps of synchronous Euler that come as near",
    "noise left: what comes out where next to nothing is there, over that; 1 × is exact",
    "t: the time of the latent; t*: the time that the model is told",
)
"""What the columns of the tables are."""


@in_panel(options.SAMPLING)
def explain(
    *,
    source: options.PromptSource,
    policies: Annotated[
        str,
        options.policies(
            "As of eval, but for those that choose by the picture.", "--policy", "--policies"
        ),
    ] = POLICIES,
    shift: Annotated[
        float | None, typer.Option(metavar="SHIFT", help="Of a grid of no backbone. (default: 3)")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="K", help="(default: the backbone's, or 10)")
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Of which some grids are functions.")
    ] = None,
    spectrum: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            callback=callbacks.read_paths,
            help="What there is at each scale, by `asyncdiff spectrum`. (default: as in images)",
        ),
    ] = None,
    reliance: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Measure on N prompts how much the backbone relies on the time it is told, which"
            " reads its weights.",
        ),
    ] = None,
    model: options.ModelOrNone,
    out: Annotated[
        Path | None, options.file_out("A chart: a .png, .svg or .pdf. (default: none)")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compute what policies do to detail and noise, on data of which everything is known.

    Of Gaussian data with the spectrum of images, or a measured one, a sampler keeps a share at each
    scale of detail. The closer to 1 the better; `worth` is the number of synchronous Euler steps
    that come as near. --backbone is whose grid it is, and its weights are read for --reliance only.

    asyncdiff explain --steps 10 --policy baseline,fixed:0.5,schedule:0.8/0.5/0 --out detail.png
    """
    from asyncdiff_cli.engine.figures.explain_request import ExplainRequest
    from asyncdiff_cli.engine.figures.formats import check_suffix
    from asyncdiff_cli.engine.files import kept_apart

    request = ExplainRequest(
        policies, model, shift, steps, size, spectrum, reliance, **vars(source)
    )
    request.check()
    if out is not None:
        check_suffix(out)
    with render.status("Computing"):
        with collector_at_rest():
            from asyncdiff_cli.engine.figures.explanation import explain_request
            from asyncdiff_cli.engine.figures.explanation_chart import write_chart

            render.quiet_libraries()
        explanation = explain_request(request, render.warning)
        written = [] if out is None else write_chart(explanation, out)
    if out is not None and (warning := kept_apart(out, written[0])):
        render.warning(warning)
    if json:
        render.as_json({**asdict(explanation), "files": [str(file) for file in written]})
        return
    headings = "policy", "error", "worth", "noise left"
    render.table(headings, [_row(one) for one in explanation.policies])
    told = zip(*(one.cond_sigmas for one in explanation.policies), strict=True)
    rows = zip(explanation.evaluated, told, strict=True)
    render.table(
        ("t", *(f"t* of {one.policy}" for one in explanation.policies)),
        [[f"{time:.3f}" for time in (own, *others)] for own, others in rows],
    )
    for said in MEANINGS:
        render.line(said)
    if explanation.reliance:
        render.table(
            ("t", "t* told", "x̂0 changes by", "the exact field's", "share"),
            [_change(one) for one in explanation.reliance],
        )
        render.line("share: of the exact field's change; 0 is a model that sees the time by itself")
    for file in written:
        render.line(str(file))


def _change(one: Reliance) -> list[str]:
    times = f"{one.sigma:.3f}", f"{one.cond_sigma:.3f}"
    return [*times, f"{one.change:.3f}", f"{one.expected:.3f}", f"{one.share:.0%}"]


def _row(one: Explained) -> list[str]:
    steps = one.worth_steps
    return [
        one.policy,
        f"{one.error:.4f}",
        "no number of steps" if steps is None else f"{steps} step{'s' * (steps != 1)}",
        f"{one.residual_noise:.1f} ×",
    ]
