"""The rows of the table: ways to draw with as many denoiser calls, each with what may be tuned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from asyncdiff_cli.engine.backbones.registry import BASELINE, evaluations
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.policies.table import POLICIES
from benchmarks.reports import slug

NOTHING, TUNING, TRAINING = "nothing", "tuning", "training"
NEEDS = (NOTHING, TUNING, TRAINING)
"""What a row takes before its first picture, the least first."""
SYNCHRONOUS, MORE_STEPS = "synchronous", "synchronous, more steps"
EULER, HEUN = "euler", "heun"
SOLVERS = {"dpmpp": "DPM++(2M)", "unipc": "UniPC", HEUN: "Heun"}
"""Rivals of Euler by name."""
GRID = (-0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
"""Fixed deviations to choose from, besides 0."""
ENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""First and last deviation of the ramps."""
RAMP = 7
"""Deviations that a ramp is written with: runs of any length resample it to the same line."""
GAMMAS = (0.5, 1.5)
"""What the schedules that were found without a reward are multiplied by."""
SHIFTS = (1.0, 1.5, 2.0, 2.5, 4.0, 5.0, 6.0)
RIVALS = {
    "Detail Daemon": ("detail-daemon", (-0.1, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)),
    "time shift": ("time-shift", (0.1, 0.25, 0.5, 1.0)),
    "epsilon scaling": ("epsilon-scaling", (0.98, 0.99, 1.005, 1.01, 1.02, 1.04, 1.06, 1.08)),
    "velocity scale": ("velocity-scale", (0.8, 0.85, 0.9, 0.95, 1.05, 1.1)),
    "detail boost, model": ("model-boost", (-0.5, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0)),
    "detail boost, sampler": ("sampler-boost", (-0.5, 0.25, 0.5, 1.0, 2.0)),
}
"""Policies of others, with the numbers that are tried."""
SHORTENED = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Velocity scales that are tried beside each constant deviation that looks ahead."""
FEW = (0.25, 0.5, 0.75), (0.85, 0.9, 0.95)
"""Deviations and velocity scales that are tried together with another solver."""
BY_PICTURE = ("time-shift",)
"""Names of rivals that look at the latents of each picture."""
MEAN = "{}, its mean for all"
"""The row of what a module decides in the mean."""
EACH = "{K}"
"""What stands for K in the place of modules that differ with it."""
LONGER = (1.2, 1.4, 1.6, 2.0, 2.5, 3.0, 4.0)
"""Multiples of K that synchronous sampling tries to match with."""


@dataclass(frozen=True)
class Candidate:
    """A way to draw.

    Attributes:
        policy: as `asyncdiff eval --policies` takes it.
        steps: of the solver.
        solver: what integrates.
        shift: of the model's grid; None for the model's own.
    """

    policy: str
    steps: int
    solver: str = EULER
    shift: float | None = None

    @property
    def said(self) -> str:
        """What sets it apart from others of its row."""
        if self.shift is not None:
            return f"shift {self.shift:g}"
        return SYNCHRONOUS if self.policy == BASELINE else self.policy

    @property
    def evaluations(self) -> int:
        """How often it asks the denoiser for a picture, without guidance."""
        return evaluations(self.solver, self.steps)


@dataclass(frozen=True)
class Row:
    """A row, which is tuned if it has several candidates.

    Attributes:
        needs: one of `NEEDS`.
        static: whether it does the same to all pictures, on the model's own grid.
        module: whether it chooses by the picture.
    """

    name: str
    needs: str
    candidates: tuple[Candidate, ...]
    static: bool = False
    module: bool = False

    @property
    def slug(self) -> str:
        """Its folder."""
        return slug(self.name)


@dataclass(frozen=True)
class Schedules:
    """What does the same to all pictures and takes a search or a module.

    Attributes:
        calibrated: deviations that were found without a reward, by solver.
        distilled: those that come nearest to what a module draws; None for none.
        means: policies of modules' mean decisions, by module.
    """

    calibrated: Mapping[str, Sequence[float]]
    distilled: Sequence[float] | None = None
    means: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Module:
    """A policy that chooses by the picture.

    Attributes:
        place: a directory, or a policy as `asyncdiff eval` takes it; {K} in it is the number of
            evaluations.
        solver: what it was trained with.
    """

    place: str
    solver: str = EULER

    def policy(self, steps: int) -> str:
        """The policy for K: a line such as lifted:DIR as it is, else that of a directory."""
        place = self.place.replace(EACH, str(steps))
        return place if place.partition(":")[0] in POLICIES else f"learned:{place}"


def rows(
    steps: int, modules: Mapping[str, Module], schedules: Schedules, shifts: bool
) -> list[Row]:
    """The rows of K evaluations, synchronous Euler first.

    Args:
        modules: what chooses by the picture, by name.
        schedules: what was calibrated and distilled for K.
        shifts: whether the grid of the model has a shift that can be changed.
    """
    own = Candidate(BASELINE, steps)
    found = [
        Row(SYNCHRONOUS, NOTHING, (own,), static=True),
        *_solver_rows(steps, schedules),
        *([Row("shifted grid", TUNING, _shifted(own))] if shifts else []),
        *_static_rows(own, schedules),
        *_rival_rows(own),
    ]
    for name, module in modules.items():
        taken = solver_steps(module.solver, steps)
        drawn = Candidate(module.policy(steps), taken, module.solver)
        found.append(Row(name, TRAINING, (drawn,), module=True))
        if (mean := schedules.means.get(name)) is not None:
            same = Candidate(mean, taken, module.solver)
            found.append(Row(MEAN.format(name), TRAINING, (same,), static=True))
    return found


def more_steps(steps: int) -> tuple[Candidate, ...]:
    """Synchronous Euler with more and more steps than K."""
    counts = dict.fromkeys(max(steps + 1, round(steps * factor)) for factor in LONGER)
    return tuple(Candidate(BASELINE, count) for count in counts)


def solver_steps(solver: str, evaluations: int) -> int:
    """Steps of a solver with so many evaluations; Heun, which takes an odd number, may have one
    more."""
    return evaluations // 2 + 1 if solver == HEUN else evaluations


def _solver_rows(steps: int, schedules: Schedules) -> Iterator[Row]:
    """Each other solver without and with its best deviation, and a velocity scale beside one.

    Heun, which is far behind with any deviation, has none.
    """
    for solver, name in SOLVERS.items():
        own = Candidate(BASELINE, solver_steps(solver, steps), solver)
        calibrated = schedules.calibrated.get(solver)
        found = ["spectral", *([] if calibrated is None else [as_policy(calibrated)])]
        given = _by(own, found)
        yield Row(name, NOTHING, (own,), static=True)
        tuned = (*_tried(own, "fixed", GRID), *given)
        yield Row(f"{name}, best deviation", TUNING, tuned, static=True)
        if solver != HEUN:
            scaled = _combined(own, *FEW)
            yield Row(f"{name}, best constant with velocity scale", TUNING, scaled, static=True)


def _static_rows(own: Candidate, schedules: Schedules) -> Iterator[Row]:
    """Schedules of Euler on the model's own grid: the same for all pictures."""
    found = {"spectral": "spectral"}
    if (calibrated := schedules.calibrated.get(EULER)) is not None:
        found["calibrated"] = as_policy(calibrated)
    scaled = [f"{policy}@{plain(gamma)}" for policy in found.values() for gamma in GAMMAS]
    ramps = [as_policy(ramp(a, b)) for a in ENDS for b in ENDS if a != b]
    tuned = _by(own, (*ramps, *scaled))
    yield Row("best constant", TUNING, _tried(own, "fixed", GRID), static=True)
    shortened = _combined(own, [d for d in GRID if d > 0], SHORTENED)
    yield Row("best constant with velocity scale", TUNING, shortened, static=True)
    yield Row("best ramp or scaled schedule", TUNING, tuned, static=True)
    for name, policy in found.items():
        needs = NOTHING if name == "spectral" else TUNING
        yield Row(name, needs, _by(own, [policy]), static=True)
    if schedules.distilled is not None:
        own = replace(own, policy=as_policy(schedules.distilled))
        yield Row("distilled", TRAINING, (own,), static=True)


def _rival_rows(own: Candidate) -> Iterator[Row]:
    """Policies of others, each with its best number."""
    for name, (policy, numbers) in RIVALS.items():
        tuned = _tried(own, policy, numbers)
        yield Row(name, TUNING, tuned, static=policy not in BY_PICTURE)


def _tried(own: Candidate, policy: str, numbers: Sequence[float]) -> tuple[Candidate, ...]:
    """A policy with each of some numbers, and synchronously."""
    return own, *_by(own, [f"{policy}:{plain(number)}" for number in numbers])


def _combined(
    own: Candidate, deviations: Sequence[float], scales: Sequence[float]
) -> tuple[Candidate, ...]:
    """Each constant deviation with each velocity scale, and synchronously."""
    return own, *_by(own, [f"combined:{plain(d)}/{plain(w)}" for d in deviations for w in scales])


def _by(own: Candidate, policies: Sequence[str]) -> tuple[Candidate, ...]:
    """The same with each of some policies."""
    return tuple(replace(own, policy=policy) for policy in policies)


def _shifted(own: Candidate) -> tuple[Candidate, ...]:
    return own, *(replace(own, shift=shift) for shift in SHIFTS)


def ramp(first: float, last: float) -> list[float]:
    """Deviations on the line between two."""
    return [first + (last - first) * n / (RAMP - 1) for n in range(RAMP)]


def as_policy(deviations: Sequence[float]) -> str:
    """The policy of a schedule, in words that name no file."""
    return "schedule:" + "/".join(plain(round(float(d), 4)) for d in deviations)
