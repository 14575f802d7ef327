"""The options that `calibrate`, `distill` and `spectrum` share, and what they do with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.engine.collector import collector_at_rest
from asyncdiff_cli.engine.schedules.search import CANDIDATES, OBJECTIVES, SPLIT, SWEEPS

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice
    from asyncdiff_cli.engine.policies.schedule_file import Schedule
    from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
    from asyncdiff_cli.engine.schedules.job import MeasuringJob, Way
    from asyncdiff_cli.engine.schedules.request import DrawnRequest

Out = Annotated[
    Path,
    options.file_out("The file. What is there of other settings is kept.", metavar="FILE.json"),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        rich_help_panel=options.OUT,
        help="Tell the cost in evaluations of the denoiser, no more.",
    ),
]


@in_panel(options.WHAT)
@dataclass(frozen=True)
class DrawnPrompts(options.PromptSource):
    """What is drawn to be measured."""

    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            callback=callbacks.read_prompts,
            help="A text or JSONL file of prompts, or hf:USER/NAME[:COLUMN] of the hub; or a local"
            " copy of the set in place of the download.",
        ),
    ] = None
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Prompts that it is made on. (default: 32)")
    ] = None
    seed: options.Seed = 0


@in_panel(options.WHAT)
@dataclass(frozen=True)
class SearchPrompts(DrawnPrompts):
    """What a search for a schedule draws."""

    held_out: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Validation prompts that the result is tried on. (default: 32)"
        ),
    ] = None


@in_panel(options.SAMPLING)
@dataclass(frozen=True)
class SearchSampling:
    """How it is drawn."""

    steps: Annotated[
        int | None, typer.Option(metavar="K", help="(default: the backbone's; of spectrum 4 times)")
    ] = None
    guidance: options.Guidance = None
    size: options.Size = None
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Images drawn at once. (default: 8)")
    ] = None


@in_panel(options.SEARCH)
@dataclass(frozen=True)
class SearchOptions:
    """How thoroughly it is searched."""

    split: Annotated[
        int, typer.Option(metavar="M", help="Steps of many in one of the few, for comparison.")
    ] = SPLIT
    candidates: Annotated[
        int, typer.Option(metavar="N", help="Deviations that a line search tries.")
    ] = CANDIDATES
    sweeps: Annotated[
        int, typer.Option(metavar="N", help="How often all deviations are refined together.")
    ] = SWEEPS
    objective: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=callbacks.completing(OBJECTIVES),
            help="What is to come closest: latents, or spectrum, how much there is at each scale.",
        ),
    ] = OBJECTIVES[0]


@in_panel(options.SCORING)
@dataclass(frozen=True)
class TrialOptions:
    """What scores the pictures that a schedule is tried on."""

    rewards: Annotated[
        str | None,
        options.rewards_option(
            "What scores the held-out pictures, and takes no part in the search; comma-separated,"
            " residual noise is added. (default: none)"
        ),
    ] = None
    reward_path: options.RewardPath = None


@in_panel(options.OUT)
@dataclass(frozen=True)
class SpectrumOptions:
    """A spectrum that is to be measured."""

    prompts: DrawnPrompts
    sampling: SearchSampling
    model: options.Model
    out: Out
    dry_run: DryRun = False
    json: options.Json = False


@in_panel(options.SEARCH)
@dataclass(frozen=True)
class ScheduleOptions:
    """A schedule that is to be made."""

    prompts: SearchPrompts
    sampling: SearchSampling
    search: SearchOptions
    trial: TrialOptions
    model: options.ModelOfModule
    out: Out
    dry_run: DryRun = False
    json: options.Json = False

    @property
    def settings(self) -> dict[str, Any]:
        """What a request for a schedule is made of."""
        groups = (self.prompts, self.sampling, self.search, self.trial)
        return {name: value for group in groups for name, value in vars(group).items()}


def make(
    given: ScheduleOptions | SpectrumOptions,
    request: DrawnRequest,
    choice: ModelChoice,
    cost: Callable[[int, int, int], int],
    way: Callable[[Any, ModelChoice], Way],
) -> None:
    """Make a file and print what is in it, or what it would cost.

    Args:
        cost: evaluations of so many images that it is made on, and tried, in K steps.
        way: how the file is made; it imports what tells, after all that can be refused without.
    """
    from asyncdiff_cli.engine.schedules.journal import workplace
    from asyncdiff_cli.engine.schedules.request import measuring_cost

    start = time.perf_counter()
    if given.dry_run:
        _show_cost(measuring_cost(request, choice, cost), given.json)
        return
    with workplace(given.out) as directory:
        with render.status("Loading the model") as downloading:
            with collector_at_rest():
                from asyncdiff_cli.engine.schedules.job import open_measuring

                render.quiet_libraries()
            found = way(request, choice)
            job = open_measuring(request, choice, found, directory, render.warning, downloading)
        _make(job, given.out, start, given.json)


def _show_cost(cost: dict[str, Any], json: bool) -> None:
    """Print what a file would cost."""
    if json:
        render.as_json(cost)
        return
    render.fields({name.replace("_", " "): v for name, v in cost.items() if name != "dry_run"})


def _make(job: MeasuringJob, out: Path, start: float, json: bool) -> None:
    """Make a file, and print what is in it."""
    from asyncdiff_cli.engine.files import kept_apart
    from asyncdiff_cli.engine.policies.schedule_file import Schedule

    with render.images(job.evaluations, things="evaluations") as advance:
        made = job.run(advance, render.note)
    if warning := kept_apart(out, job.path):
        render.warning(warning)
    if json:
        values = made.model_dump(mode="json", exclude_none=True)
        seconds = round(time.perf_counter() - start, 3)
        render.as_json({"file": str(job.path), **values, "seconds": seconds})
        return
    if isinstance(made, Schedule):
        show_schedule(made)
    else:
        show_spectrum(made)
    render.line(str(job.path))


def show_spectrum(measured: MeasuredSpectrum) -> None:
    """Print how much there is at each scale of detail, by octaves."""
    rows = [
        (f"{frequency:g}", f"{std:.4g}", f"{share:.2%}")
        for frequency, std, share in measured.rows
        if frequency.is_integer() and int(frequency).bit_count() <= 1
    ]
    render.table(("cycles per image", "size", "share of components"), [[*row] for row in rows])


def show_schedule(schedule: Schedule) -> None:
    """Print the deviations, what they explain of a module, and the held-out table."""
    made: dict[str, Any] = schedule.made
    share = made.get("share_of_step")
    adds: Any = schedule.held_out.get("module_over_schedule")
    render.fields(
        {
            "deviations": ", ".join(f"{d:g}" for d in schedule.deviations),
            "t*": ", ".join(f"{t:.3f}" for t in schedule.cond_sigmas or ()),
            "explained": share and f"{share:.1%} of the module's decisions, by the step alone",
        }
    )
    rows: Any = schedule.held_out.get("policies", [])
    if rows:
        first, *others = [[row["policy"], *_cells(row), f"{row['spectrum']:.4g}"] for row in rows]
        render.table(
            ("policy", "distance to many steps", "difference", "95 % interval", "of spectra"),
            [[*first[:2], "", "", first[-1]], *others],
        )
    if adds:
        rows = [*rows, {"policy": "module less its schedule", **adds}]
        render.line(f"the module's distance beside its schedule's: {' '.join(_cells(adds)[1:])}")
    for reward in rows[0]["rewards"] if rows else ():
        first, *others = [[row["policy"], *_cells(row["rewards"][reward])] for row in rows]
        headings = "policy", reward, "difference", "95 % interval"
        render.table(headings, [[*first[:2], "", ""], *others])


def _cells(row: Any) -> list[str]:
    from asyncdiff_cli.engine.evaluation.cells import distance_cell

    cell = distance_cell(row)
    return [cell.text, cell.difference, cell.interval]
