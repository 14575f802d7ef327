"""Schedules of deviations, as a user writes them or as a file holds them."""

from __future__ import annotations

import json
import logging
import os
import re
import reprlib
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import interpolate

SUFFIX = ".json"
LARGEST = 16 << 20
"""Bytes of a file; schedules are far below."""
MAX_STEPS = 1000
SOLVERS = ("euler", "heun", "dpmpp", "unipc")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """Deviations D in [-1, 1], before γ, of every evaluation but the first.

    Raises:
        ValueError: for none, or one that is out of range or no number.
    """

    deviations: tuple[float, ...]
    constant: bool = False
    """Whether there is one deviation, for runs of any length."""
    solver: str | None = None
    """What they were made for; None is not known."""

    def __post_init__(self) -> None:
        if not self.deviations:
            raise ValueError("there is no deviation: give one, such as 0.5, or one per step")
        for place, deviation in enumerate(self.deviations, 1):
            if not _is_number(deviation) or not -1 <= deviation <= 1:
                raise ValueError(
                    f"deviation {place} is {reprlib.repr(deviation)}: give a number in [-1, 1]"
                )

    def for_run(self, decisions: int) -> list[float]:
        """The deviations of a run that takes `decisions` of them, at least 1.

        They are resampled linearly where they are for another number, and a warning says so.
        """
        if self.constant:
            return list(self.deviations) * decisions
        if decisions == len(self.deviations):
            return list(self.deviations)
        log.warning(
            "asyncdiff: the schedule has %d deviations and the run takes %d: it is resampled, and"
            " no longer what it was made to be",
            len(self.deviations),
            decisions,
        )
        own = torch.tensor(self.deviations, dtype=torch.float64)[None, None]
        return interpolate(own, decisions, mode="linear", align_corners=True).flatten().tolist()


def read_schedule(text: str) -> Schedule:
    """Read deviations, between commas or white space, or the path of a schedule file.

    Raises:
        ValueError: in one line, for what is neither.
    """
    text = text.strip()
    path = text.strip("\"'")  # in quotes, as Windows and shells copy one
    if path.lower().endswith(SUFFIX) and "\n" not in path:
        return _read_file(os.path.expanduser(path))
    numbers = text.removesuffix(",").strip("[] \n")
    parts = re.split(r"\s*,\s*|\s+", numbers) if numbers else []
    return Schedule(deviations := tuple(map(_number, parts)), constant=len(deviations) == 1)


def _number(part: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise ValueError(
            f"{reprlib.repr(part)} is no number: give deviations such as 0.8, 0.5, 0.1, or the"
            f" path of a schedule file, which ends in {SUFFIX}"
        ) from None


def _read_file(path: str) -> Schedule:
    """A schedule file of format 1, as `asyncdiff` writes them."""
    content = read_json(path, "schedule file")
    try:
        _check(content)
        solver = content.get("solver", "euler")
        return Schedule(tuple(content["deviations"]), solver=solver)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_json(path: str, kind: str) -> Any:
    """What a file of JSON holds.

    Args:
        kind: what it should be, for messages.

    Raises:
        ValueError: in one line, if it is not there or cannot be read.
    """
    if not os.path.isfile(path):
        raise ValueError(f"there is no file {path}: give its whole path")
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise ValueError(f"{path} is no {kind}: it has more than {LARGEST >> 20} MiB")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is no {kind}: it does not hold JSON") from None


def _check(content: Any) -> None:
    """It has the fields of a schedule that this node can run, and they fit each other."""
    if not isinstance(content, dict) or not isinstance(content.get("deviations"), list):
        raise ValueError("it is no schedule file: it has no list of `deviations`")
    version, solver = content.get("format", 1), content.get("solver", "euler")
    if version != 1:
        raise ValueError(f"its format is {reprlib.repr(version)}, and this node reads format 1")
    if solver not in SOLVERS:
        known = ", ".join(SOLVERS)
        raise ValueError(f"its solver is {reprlib.repr(solver)}, and none of {known}")
    if solver == "heun":
        raise ValueError(
            "it is for heun, whose two evaluations at one time cannot be told apart here: make one"
            " for euler"
        )
    steps, deviations = content.get("steps"), content["deviations"]
    if type(steps) is not int or not 2 <= steps <= MAX_STEPS:
        raise ValueError(f"`steps` is {reprlib.repr(steps)}, and no number from 2 to {MAX_STEPS}")
    if len(deviations) != steps - 1:
        raise ValueError(f"{steps} steps need {steps - 1} deviations, not {len(deviations)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
