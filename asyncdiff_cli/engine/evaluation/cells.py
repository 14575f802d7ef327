"""The places of a table: numbers as people read them, and which of them are marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, NamedTuple

from asyncdiff_cli.engine.evaluation.set_metrics import NAMES as SET_METRICS
from asyncdiff_cli.engine.rewards import ENTRIES, GUARD, entry
from asyncdiff_cli.engine.statistics import Difference

HEADINGS = {
    "policy": "policy",
    "gamma": "γ",
    "steps": "steps",
    "bound": "bound",
    "mean_deviation": "mean D",
    "image_reward": "ImageReward",
    "hpsv2": "HPSv2",
    "hpsv2.1": "HPSv2.1",
    "clip": "CLIP score",
    "pickscore": "PickScore",
    GUARD: "noise (guard)",
    "cmmd": "CMMD ↓",
    "fid": "FID ↓",
    "fid_judge": "Fréchet distance (judge) ↓",
    "spectrum": "spectrum error, dB ↓",
}
"""Columns as people write them; other metrics go by their name."""
DIGITS = {"pickscore": 2, "cmmd": 3, "fid": 2, "fid_judge": 3, "spectrum": 3}
"""Digits behind the point, as in the paper; 4 for other metrics."""

Mark = Literal["", "best", "second"]


class Cell(NamedTuple):
    """A place of a table."""

    value: str | float | Difference | None
    """The mean in full precision."""
    text: str
    difference: str = ""
    """The difference to the baseline, of the metrics of other rows."""
    interval: str = ""
    mark: Mark = ""


def heading(name: str) -> str:
    """A column as people write it."""
    return HEADINGS.get(name, name)


def has_best(metric: str) -> bool:
    """Whether a best is marked: not of the guard, nor of a reward of which higher is not better.

    Of what other programs have measured, higher is better.
    """
    if metric in SET_METRICS or metric not in ENTRIES:
        return True
    return metric != GUARD and entry(metric).higher_is_better


def marks(means: Sequence[float], digits: int) -> list[Mark]:
    """The means that are best and second best, as they print.

    As in the paper's tables: means that print alike share the best, and then there is no second;
    nor is there one where two share its place. Where all print alike, nothing is marked.
    """
    printed = [float(f"{mean:.{digits}f}") for mean in means]
    best, *others = sorted(printed, reverse=True)
    if best == min(printed):
        return [""] * len(printed)
    second = others[0] if printed.count(best) == printed.count(others[0]) == 1 else math.nan
    return ["best" if p == best else "second" if p == second else "" for p in printed]


def deviation_cell(deviation: float) -> Cell:
    """A mean deviation."""
    return Cell(deviation, signed(deviation, 3))


def metric_cell(metric: str, paired: Difference, compared: bool = True, mark: Mark = "") -> Cell:
    """A mean, and how it differs from the baseline's unless it is that one."""
    digits = digits_of(metric)
    text = f"{paired.mean:.{digits}f}"
    if not compared:
        return Cell(paired, text, mark=mark)
    interval = f"[{signed(paired.low, digits)}, {signed(paired.high, digits)}]"
    return Cell(paired, text, signed(paired.difference, digits), interval, mark)


def distance_cell(row: Mapping[str, Any], compared: bool = True) -> Cell:
    """A mean and its difference as a schedule file has them, in four digits of any size.

    Args:
        row: the fields of a `Difference`, among others.
    """
    found = difference_of(row)
    if not compared:
        return Cell(found, f"{found.mean:.4g}")
    interval = "" if found.n == 1 else f"[{found.low:+.4g}, {found.high:+.4g}]"
    return Cell(found, f"{found.mean:.4g}", f"{found.difference:+.4g}", interval)


def difference_of(row: Mapping[str, Any]) -> Difference:
    """The difference of a row of a schedule file."""
    return Difference(**{field.name: row[field.name] for field in fields(Difference)})


def digits_of(metric: str) -> int:
    """How many of a metric's digits are written behind the point."""
    return DIGITS.get(metric, 4)


def signed(value: float, digits: int) -> str:
    """A number with its sign, as differences are written."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # a zero without its minus


def aligned(column: str) -> Literal["left", "right"]:
    """Numbers are right, but metrics left: their means stand first, differences follow."""
    return "right" if column in ("gamma", "steps", "bound", "mean_deviation") else "left"
