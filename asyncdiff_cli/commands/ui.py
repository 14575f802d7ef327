"""`asyncdiff ui`: a page on which schedules are dragged beside the pictures that they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.engine.policies.table import usages

LOCALHOST, PORT = "127.0.0.1", 7860


@in_panel(options.WHAT)
@dataclass(frozen=True)
class _Start:
    """What the page begins with, as fields of a request."""

    prompt: Annotated[str, typer.Argument(metavar="[PROMPT]", help="What to draw.")] = "a fox"
    seed: Annotated[int, typer.Option(metavar="SEED", help="Draws the noise.")] = 0


@in_panel(options.TIME)
@dataclass(frozen=True)
class _Deviations:
    """Which conditioning time the model is told, as fields of a request."""

    policy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:VALUE][@γ]",
            help=f"Whose deviations: {usages()}. (default: the backbone's, or fixed:0.5)",
        ),
    ] = None
    gamma: options.Gamma = None


@in_panel(options.SAMPLING)
@dataclass(frozen=True)
class _Sampling:
    """How it is drawn, as fields of a request."""

    steps: options.Steps = None
    guidance: options.Guidance = None
    size: options.Size = None


@in_panel(options.OUT)
def ui(
    *,
    start: _Start,
    deviations: _Deviations,
    sampling: _Sampling,
    model: options.Model,
    out: Annotated[
        Path, options.directory_out("Where what is saved goes, and nothing else is written.")
    ] = Path("outputs"),
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Who may come, without a password: 127.0.0.1 is this machine alone.",
        ),
    ] = LOCALHOST,
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535)] = PORT,
    json: options.Json = False,
) -> None:
    """Open a page that shows what a schedule does: drag a step's deviation, and see the picture.

    It draws PROMPT with and without deviations from the same noise, and saves pictures and
    schedules. ctrl-C ends it. It needs gradio: pip install 'asyncdiff-cli[ui]'

    asyncdiff ui "a rocket under a starry sky" --steps 5 --policy fixed:1
    """
    from asyncdiff_cli.engine.drawing.checked_request import check_request
    from asyncdiff_cli.engine.drawing.request import parse_request
    from asyncdiff_cli.ui.server import check_address, check_gradio, exposure

    check_gradio()
    values = {**vars(start), **vars(deviations), **vars(sampling)}
    request = parse_request(prompts=(values.pop("prompt"),), **values)
    check_request(request, model, out)
    check_address(host, port)
    if warning := exposure(host, port):
        render.warning(warning)
    with render.status("Loading the model"):
        from asyncdiff_cli.ui.page import Page
        from asyncdiff_cli.ui.server import serve, wait
        from asyncdiff_cli.ui.studio import Studio

        render.quiet_libraries()
        page = Page(Studio.open(request, model, out, render.warning), request)
    with serve(page, host, port) as url:
        if json:
            render.as_json({"url": url, "backbone": model.name, "out": str(out)})
        else:
            render.line(f"{url} (ctrl-C ends it)")
        wait()
