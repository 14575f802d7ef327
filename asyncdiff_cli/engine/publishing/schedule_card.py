"""The cards of a schedule and of a spectrum."""

from __future__ import annotations

import json
from collections.abc import Sequence

from huggingface_hub import EvalResult
from pydantic import Field, field_validator

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.evaluation.cells import Cell, difference_of, distance_cell
from asyncdiff_cli.engine.evaluation.tables import OURS, TableBlock
from asyncdiff_cli.engine.figures.schedule import schedule_figure
from asyncdiff_cli.engine.figures.spectrum import spectrum_figure
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.publishing.card import (
    Card,
    CardChart,
    MeasuredOn,
    backbone_option,
    drawn_with,
    whom,
)
from asyncdiff_cli.engine.reading import Read, parse_json

DISTANCE = "distance to many steps"
CAPTION = "D of each decision; and the time that is told, t*, against the latent's own, t."
SPECTRUM_CAPTION = "How much there is of clean latents at each scale of detail."
OWN_ROWS = ("calibrated", "distilled")
"""How the held-out table of a file calls what is in the file."""
EULER = """\
from asyncdiff_cli.engine import AsyncFlowMatchEulerScheduler

pipe.scheduler = AsyncFlowMatchEulerScheduler.from_config(
    pipe.scheduler.config, deviations={deviations}
)
image = pipe("a cat"{arguments}).images[0]"""
LOADED = """\
from huggingface_hub import hf_hub_download
from asyncdiff_cli.engine import Schedule, attach

with attach(pipe, Schedule.load(hf_hub_download("REPOSITORY", "schedule.json")).policy()):
    image = pipe("a cat"{arguments}).images[0]"""
SPECTRUM = """\
from asyncdiff_cli.engine import REGISTRY, attach, parse_policy

with attach(pipe, parse_policy("spectral:REPOSITORY", REGISTRY["{backbone}"]).policy):
    image = pipe("a cat").images[0]"""


class TriedMetric(Read):
    """A metric of a policy on held-out prompts, as a `Difference`."""

    mean: float
    difference: float
    low: float
    high: float
    n: int


class TriedRow(TriedMetric):
    """A policy that was tried: its distance to the pictures of many steps, and its rewards."""

    policy: str
    rewards: dict[str, TriedMetric] = Field({})


class Tried(Read):
    """What a schedule file says of held-out prompts."""

    policies: list[TriedRow] = Field([])

    @field_validator("policies")
    @classmethod
    def _check_rewards(cls, rows: list[TriedRow]) -> list[TriedRow]:
        if any(row.rewards.keys() != rows[0].rewards.keys() for row in rows):
            raise ValueError("all of them have the same rewards")
        return rows


def schedule_card(schedule: Schedule) -> Card:
    """What a schedule's card says.

    Raises:
        InputError: if what it says of held-out prompts is damaged.
    """
    code = EULER if schedule.solver == "euler" else LOADED
    arguments = drawn_with(schedule.steps, schedule.guidance_scale)
    numbers = [plain(deviation) for deviation in schedule.deviations]
    made = schedule.made.get("by", "hand")
    rows = parse_json(json.dumps(schedule.held_out), Tried, "the schedule's held_out").policies
    return Card(
        f"A schedule of deviations for {whom(schedule.backbone)}: how far the time"
        " that the model is told runs ahead of the sampler's, at each of"
        f" {schedule.steps} steps of `{schedule.solver}`. The image model is not changed, and not"
        " in this repository.",
        f"--policy {'calibrated' if made == 'calibration' else 'schedule'}:REPOSITORY",
        code.format(deviations=f"[{', '.join(numbers)}]", arguments=arguments),
        {
            "deviations": ", ".join(numbers),
            "steps": schedule.steps,
            "solver": schedule.solver,
            "backbone": schedule.backbone,
            "revision": schedule.revision,
            "grid": schedule.grid,
            "shift": schedule.shift,
            "guidance": schedule.guidance_scale,
            "size": _size(schedule),
            "made by": made,
            "command": schedule.made.get("command"),
        },
        schedule.backbone,
        {
            "--steps": schedule.steps,
            "--guidance": schedule.guidance_scale,
            "--scheduler": None if schedule.solver == "euler" else schedule.solver,
        },
        _table(rows),
        [CardChart("schedule.png", CAPTION, schedule_figure(schedule))],
        _results(schedule, rows),
    )


def spectrum_card(measured: MeasuredSpectrum) -> Card:
    """What a spectrum's card says."""
    backbone, known = measured.backbone, backbone_option(measured.backbone)
    return Card(
        f"The spectrum of the clean latents of {whom(backbone)}, which"
        " `--policy spectral:` derives the best schedule of for any steps and solver.",
        "--policy spectral:REPOSITORY",
        SPECTRUM.format(backbone=known if known in REGISTRY else "mini"),
        {
            "backbone": backbone,
            "revision": measured.revision,
            "frequencies": len(measured.frequency),
            "steps": measured.steps,
            "guidance": measured.guidance_scale,
            "size": _size(measured),
            "command": measured.made.get("command"),
        },
        backbone,
        charts=[CardChart("spectrum.png", SPECTRUM_CAPTION, spectrum_figure(measured))],
    )


def _size(made: Schedule | MeasuredSpectrum) -> str | None:
    return None if made.height is None else f"{made.height} × {made.width}"


def _table(rows: Sequence[TriedRow]) -> list[TableBlock]:
    """The held-out table, its first row without differences: the others are beside it."""
    if not rows:
        return []
    rewards = [*rows[0].rewards]
    table = [
        {
            "policy": Cell(row.policy, row.policy),
            DISTANCE: distance_cell(vars(row), bool(place)),
            **{name: distance_cell(vars(row.rewards[name]), bool(place)) for name in rewards},
        }
        for place, row in enumerate(rows)
    ]
    title = "Held-out prompts: mean, and paired difference to the first row with its 95 % interval"
    return [TableBlock.of(OURS, title, ["policy", DISTANCE, *rewards], table)]


def _results(schedule: Schedule, rows: Sequence[TriedRow]) -> list[EvalResult]:
    """The held-out metrics of the schedule itself, whose row is named by how it was made."""
    own = next((row for row in rows if row.policy in OWN_ROWS), None)
    if own is None:
        return []
    drawn = schedule.steps, schedule.guidance_scale
    held_out = MeasuredOn(str(schedule.made.get("dataset")), "validation", *drawn)
    return [
        held_out.result("distance", difference_of(vars(own)), DISTANCE),
        *(held_out.result(name, difference_of(vars(own.rewards[name]))) for name in own.rewards),
    ]
