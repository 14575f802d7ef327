"""`asyncdiff sample`: draw images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import options
from asyncdiff_cli.commands.dry_run import DryRunOptions, needs_shown
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.engine.collector import collector_at_rest
from asyncdiff_cli.engine.policies.table import usages

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice
    from asyncdiff_cli.engine.drawing.request import Request


@in_panel(options.WHAT)
@dataclass(frozen=True)
class _Prompts:
    """What is drawn, as fields of a request."""

    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to draw.")] = (
        None
    )
    prompt_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts, one a line; or JSON objects, one a line, with options of their own"
            ' ({"prompt": …, "seed": 7, "gamma": 1.5}); - is stdin; hf:USER/NAME[:COLUMN] a data'
            " set of the hub.",
        ),
    ] = None
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="IMAGE",
            help="Draw this image again; with other options, its noise with these.",
        ),
    ] = None
    num_images: Annotated[
        int | None,
        typer.Option("--num-images", "-n", metavar="N", help="Images per prompt. (default: 1)"),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="SEED", help="Of the first image; the next one has the next seed. (default: 0)"
        ),
    ] = None
    negative: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What not to draw."),
    ] = None


@in_panel(options.WHAT)
@dataclass(frozen=True)
class _InputImage:
    """What is drawn from, as fields of a request."""

    image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw from this image: change it, or with FLUX.2 and FLUX.1 Kontext edit it as the"
            " prompt says.",
        ),
    ] = None
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="How much of the image is drawn anew, in (0, 1]: the share of the steps that is"
            " run. (default: 0.6)",
        ),
    ] = None
    controlnet: Annotated[
        str | None,
        typer.Option(
            metavar="REPO_OR_DIR",
            help="Draw with this control net of SD3, FLUX.1 or Qwen-Image; a repository may have a"
            " revision, OWNER/NAME@REV.",
        ),
    ] = None
    control_image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What it is shown: edges, a pose, depth, as it was trained on."
        ),
    ] = None
    control_scale: Annotated[
        float | None,
        typer.Option(metavar="X", help="How strong it is, in [0, 10]. (default: 1)"),
    ] = None


@in_panel(options.TIME)
@dataclass(frozen=True)
class _Deviations:
    """Which conditioning time the model is told, as fields of a request."""

    deviation: Annotated[
        float | None,
        typer.Option(
            metavar="D",
            help="How far ahead of the noise the model is told to be, in steps: 0 is the stock"
            " sampler, 1 one whole step cleaner. (default: the backbone's)",
        ),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="D1,D2,…", help="A deviation after each step, resampled to the number of steps."
        ),
    ] = None
    tpm: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Deviations by a trained module: what `asyncdiff train` wrote, a hub repository,"
            " or a backbone that ships one.",
        ),
    ] = None
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:VALUE][@γ]",
            help=f"Instead of those three, a policy by name: {usages()}.",
        ),
    ] = None
    gamma: options.Gamma = None
    bound: Annotated[
        float | None,
        typer.Option(metavar="B", help="Deviations must be in [-B, B]: 0.5 or 1. (default: 1)"),
    ] = None
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="γ1,γ2,…", help="Draw the same noise at each γ, and a panel of them per prompt."
        ),
    ] = None
    stepwise: Annotated[
        bool,
        typer.Option(
            "--stepwise",
            help="Draw the stock sampler's image of the same noise too, and a sheet of x̂0, what"
            " the model takes the image to be, after every step of both.",
        ),
    ] = False


@in_panel(options.SAMPLING)
@dataclass(frozen=True)
class _Sampling:
    """How it is drawn, as fields of a request."""

    steps: options.Steps = None
    guidance: Annotated[
        float | None,
        typer.Option(
            metavar="SCALE",
            help="Classifier-free guidance; for FLUX the embedded one, and with --negative both."
            " (default: the backbone's)",
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(metavar="PIXELS", help="One side, or WIDTHxHEIGHT. (default: the backbone's)"),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Images drawn at once. (default: 4)"),
    ] = None


def sample(
    *,
    prompts: _Prompts,
    image: _InputImage,
    deviations: _Deviations,
    sampling: _Sampling,
    model: options.Model,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", rich_help_panel=options.OUT, help="Where the PNG files go."),
    ] = Path("outputs"),
    parameters: Annotated[
        bool | None,
        typer.Option(
            "--parameters/--no-parameters",
            rich_help_panel=options.OUT,
            help="Say in each PNG, in the words of Stable Diffusion web UI, what drew it."
            " (default: yes; with --from as the image has it)",
        ),
    ] = None,
    dry_run: DryRunOptions,
    json: options.Json = False,
) -> None:
    """Draw images of PROMPTs. The paths of the files are printed as they are written.

    Each image carries what it was drawn from: `asyncdiff inspect IMAGE` shows it, and
    `asyncdiff sample --from IMAGE` draws the same file again. The same command writes the same
    files; an image of other settings is never replaced, and the new one's name gets a number.

    asyncdiff sample "a fox" "a rocket under a starry sky" --compare 0,0.5,1,2
    """
    from asyncdiff_cli.engine.drawing.checked_request import check_request
    from asyncdiff_cli.engine.drawing.request import parse_request
    from asyncdiff_cli.engine.locks import hold

    request = parse_request(**vars(prompts), **vars(image), **vars(deviations), **vars(sampling))
    check_request(request, model, out)
    if dry_run.asked:
        _forecast(request, model, out, dry_run.measure, json)
        return

    with hold(out):
        _draw(request, model, out, parameters, json)


def _draw(
    request: Request, model: ModelChoice, out: Path, parameters: bool | None, json: bool
) -> None:
    with render.status("Loading the model"):
        with collector_at_rest():
            from asyncdiff_cli.engine.drawing.job import open_job

            render.quiet_libraries()
        job = open_job(request, model, out, render.warning, parameters)
    for text in job.warnings:
        render.warning(text)
    written, start = [], time.perf_counter()
    with render.progress(job.plan.images) as progress:
        for file in job.run(progress.step):
            written.append(file)
            if not json:
                render.line(str(file.path))
    for warning in filter(None, (job.differences(written), job.renamed(written))):
        render.warning(warning)
    if json:
        render.as_json(job.report(written, time.perf_counter() - start))


def _forecast(request: Request, choice: ModelChoice, out: Path, measure: bool, json: bool) -> None:
    from asyncdiff_cli.engine.drawing.dry_run import forecast

    with render.status("Looking at the model"):
        found = forecast(request, choice, out, measure, render.quiet_libraries).to_dict(out)
    if json:
        render.as_json(found)
        return
    seconds = f"{found['seconds']:.1f} s" if found["seconds"] else "unknown"
    render.fields(
        {
            "images": found["images"],
            **needs_shown(found),
            "time": f"{seconds} ({found['seconds_reason']})",
        }
    )
    if found["advice"]:
        render.warning(found["advice"])
    for settings in found["settings"]:
        groups = {name: render.pairs(v) for name, v in settings.items() if isinstance(v, dict)}
        render.fields({"settings": render.pairs({**settings, **groups})})
    for file in found["files"]:
        render.line(file)
    if found["taken"]:
        render.warning(
            f"{len(found['taken'])} of these files are there: where other settings drew one, the"
            " new one's name gets a number"
        )
