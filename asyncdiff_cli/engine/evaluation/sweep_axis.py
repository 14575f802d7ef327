"""What a sweep varies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from asyncdiff_cli.engine.backbones.registry import BASELINE, BackboneEntry
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.modules import main_policy

BY_BOUND = {0.5: "learned", 1.0: "lifted"}


class Axis(NamedTuple):
    """What is swept."""

    name: str
    """ "gamma", "deviation" or "steps"."""
    policies: str
    """What is drawn, as `eval --policies`."""


def sweep_axis(
    policies: str | None,
    gammas: Sequence[float],
    deviations: Sequence[float],
    bounds: Sequence[float],
    steps: Sequence[int],
    entry: BackboneEntry,
) -> Axis:
    """What a sweep draws, and the axis of its charts.

    Args:
        policies: in place of the backbone's modules.
        gammas, deviations, steps: one of them is the axis; with γ or D, each number of steps is a
            line of its own.
        bounds: 0.5 for the learned module, 1 for the lifted one.

    Raises:
        InputError: if nothing is swept, or two things that do not go together.
    """
    if gammas and deviations:
        raise InputError("--gammas scales deviations: sweep it or --deviations, not both")
    if deviations and (policies or bounds):
        raise InputError("--deviations draws fixed ones: it takes neither --policies nor --bounds")
    if policies and bounds:
        raise InputError("--bounds chooses among the modules: it does not go with --policies")
    if unknown := [bound for bound in bounds if bound not in BY_BOUND]:
        raise InputError(f"a bound is 0.5 or 1, not {unknown[0]:g}")
    if not (gammas or deviations or len(steps) > 1 or len(bounds) > 1):
        raise InputError("nothing to sweep: give --gammas, --deviations, --bounds or --steps")
    if deviations:
        return Axis("deviation", ",".join([BASELINE, *(f"fixed:{d:g}" for d in deviations if d)]))
    modules = [BY_BOUND[bound] for bound in bounds]
    if not modules and policies is None:
        # the lifted module is the paper's comparison, and is not scaled
        modules = [main_policy(entry), *(["lifted@1"] if "lifted" in entry.modules else [])]
    chosen = policies or ",".join(modules)
    return Axis("gamma" if gammas or bounds else "steps", f"{BASELINE},{chosen}")
