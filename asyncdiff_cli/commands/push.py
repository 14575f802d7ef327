"""`asyncdiff push`: a module, a schedule or a spectrum on the hub, with its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.groups import in_panel


@in_panel(options.OUT)
def push(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE",
            callback=callbacks.read_paths,
            help="A training run or its module; or a file of calibrate, distill or spectrum.",
        ),
    ],
    repository: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="The repository. It is made if not there.")
    ],
    license: Annotated[
        str | None,
        typer.Option(metavar="ID", help="What the card says of it, such as apache-2.0."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Let a new repository be seen by you alone.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="(default: main; made if not there)")
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Propose it in a pull request.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what is there of the same names.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write what would go up to --out, and ask no hub.")
    ] = False,
    out: Annotated[
        Path | None, options.directory_out("Of a dry run. (default: cards/NAME)")
    ] = None,
    json: options.Json = False,
) -> None:
    """Put a trained module or a schedule on the Hugging Face Hub, with a card, in one commit.

    The card has the recipe, the curves, the held-out table with its intervals, also as metadata,
    a chart, and how to use it. Only safetensors, JSON, PNG and README.md go up. What is there
    is replaced only with --replace.

    asyncdiff push runs/mini alice/mini-tpm --license apache-2.0 --dry-run
    """
    from asyncdiff_cli.engine.publishing.destination import Destination, dry_folder
    from asyncdiff_cli.engine.publishing.material import find_material

    destination = Destination(repository, private, revision, create_pr, replace)
    folder = dry_folder(destination, dry_run, out)
    material = find_material(source)
    remote = None
    if not dry_run:
        from asyncdiff_cli.engine.publishing.upload import look_up

        remote = look_up(destination, material)
    with render.status("Writing the card"):
        from asyncdiff_cli.engine.publishing.publish import publish

        render.quiet_libraries()
        done = publish(material, destination, remote, license, folder, render.warning)
    if json:
        render.as_json(done)
    else:
        _show(done)


def _show(done: dict[str, Any]) -> None:
    """Print what is on the hub, or would be."""
    render.table(("file", "size"), [[n, render.size(b)] for n, b in done["files"].items()])
    if "folder" in done:
        render.line(f"{done['folder']}: nothing was pushed to {done['repository']}")
        return
    render.line(done["url"] if done["changed"] else f"{done['url']}: all of it was there")
    render.line(f"this commit is {done['place']}")
