"""Policies as they are written on a command line: `NAME[:VALUE][@GAMMA]`.

    baseline               the synchronous sampler; also `synchronous`
    fixed:D                FixedDeviation
    schedule:D1/D2/…       ScheduledDeviation
    schedule:FILE.json     the policy of a schedule file
    spectral[:WEIGHT]      SpectralDeviation
    learned[:DIR]          the backbone's module, or one of a directory, a hub repository or the
                           name of another backbone
    lifted[:DIR]           the same of a module with the bound 1
    detail-daemon[:AMOUNT] DetailDaemon
    velocity-scale[:OMEGA] VelocityScale
    time-shift[:WINDOW]    TimeShift
    combined:D/OMEGA       Combined

Reading a line needs no torch; making its policy does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncdiff_cli.engine.checks import (
    check_amount,
    check_choice,
    check_deviation,
    check_gamma,
    check_scale,
    check_weight,
    check_window,
)
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.modules import find_module
from asyncdiff_cli.engine.reading import check_readable
from asyncdiff_cli.engine.registry import BackboneEntry

if TYPE_CHECKING:
    from asyncdiff_cli.engine.learned import LearnedDeviation
    from asyncdiff_cli.engine.policies import Policy


class ChosenPolicy(NamedTuple):
    """A policy that was asked for by a line."""

    label: str
    """The line without its γ, numbers at their shortest and defaults left out."""
    policy: Policy
    gamma: float


@dataclass(frozen=True)
class _Kind:
    """What follows the name."""

    example: str
    checks: tuple[Callable[[float], None], ...] = ()
    """One per number."""
    any_length: bool = False
    """Whether there are one or more numbers, all held to the same check."""
    default: float | None = None


KINDS = {
    "baseline": _Kind("baseline"),
    "fixed": _Kind("fixed:0.5", (check_deviation,)),
    "schedule": _Kind("schedule:0.5/0.2/0", (check_deviation,), any_length=True),
    "spectral": _Kind("spectral:1", (check_weight,), default=1.0),
    "learned": _Kind("learned:DIR"),
    "lifted": _Kind("lifted:DIR"),
    "detail-daemon": _Kind("detail-daemon:0.1", (check_amount,), default=0.1),
    "velocity-scale": _Kind("velocity-scale:0.9", (check_scale,), default=0.9),
    "time-shift": _Kind("time-shift:0.5", (check_window,), default=0.5),
    "combined": _Kind("combined:0.5/0.9", (check_deviation, check_scale)),
}
ALIASES = {"synchronous": "baseline"}
MODULES = ("learned", "lifted")
"""Those whose value is a place and not numbers."""


@dataclass(frozen=True)
class PolicySpec:
    """A line that was read."""

    name: str
    values: tuple[float, ...] = ()
    """Its numbers; the default where there is one and none was given."""
    source: str | None = None
    """Where its module is; None for the one that the backbone ships."""
    gamma: float | None = None

    @property
    def label(self) -> str:
        """The line without its γ, numbers at their shortest and defaults left out."""
        if self.source is not None:
            return f"{self.name}:{self.source}"
        if not self.values or self.values == (KINDS[self.name].default,):
            return self.name
        return f"{self.name}:{'/'.join(map(plain, self.values))}"


def read_policy(text: str) -> PolicySpec:
    """Read `NAME[:VALUE][@GAMMA]`, without looking for a module.

    Raises:
        InputError: for an unknown name (with the nearest one), and for values that are missing, too
            many, not numbers or out of range.
    """
    text = text.strip()
    rest, gamma = _split_gamma(text)
    if gamma is not None and _split_gamma(rest)[1] is not None:
        raise InputError(f"policy {text!r} has two gammas")
    given, colon, value = rest.partition(":")
    name = ALIASES.get(given, given)
    check_choice("policy", name, [*KINDS, *ALIASES])
    if name in MODULES:
        if colon and not value:
            raise InputError(f"policy {name}: there is nothing after the colon")
        if not value.isprintable():
            raise InputError(f"policy {name}: {value!r} is not a place")
        return PolicySpec(name, source=value or None, gamma=gamma)
    if is_schedule_file(rest):
        return PolicySpec(name, source=value, gamma=gamma)
    return PolicySpec(name, _numbers(name, value if colon else None), gamma=gamma)


def find_policy(text: str) -> PolicySpec:
    """As `read_policy`, of a policy whose module or file is there; no repository is asked for it.

    Raises:
        InputError: as `read_policy` and `find_module`, and for a file that cannot be read.
    """
    spec = read_policy(text)
    if spec.source is not None and spec.name not in MODULES:
        check_readable(expanded(spec.source))
    elif spec.source is not None:
        find_module(spec.source)
    return spec


def parse_policy(text: str, entry: BackboneEntry) -> ChosenPolicy:
    """The policy that `NAME[:VALUE][@GAMMA]` asks for on a backbone; γ is 1 if none is given.

    Raises:
        InputError: as `read_policy`, and for a module that is not there or has another bound.
        AsyncDiffError: for a module that cannot be fetched or is damaged.
    """
    spec = read_policy(text)
    gamma = 1.0 if spec.gamma is None else spec.gamma
    return ChosenPolicy(spec.label, make_policy(spec, entry), gamma)


def parse_policies(text: str, entry: BackboneEntry) -> list[ChosenPolicy]:
    """The policies of a list that is separated by commas.

    Raises:
        InputError: as `parse_policy`, for no policy, and for one that is asked for twice.
    """
    seen: set[tuple[str, float]] = set()
    for part in (parts := text.split(",")):
        spec = read_policy(part)
        key = spec.label, 1.0 if spec.gamma is None else spec.gamma
        if key in seen:
            raise InputError(f"policy {part.strip()!r} is asked for twice")
        seen.add(key)
    return [parse_policy(part, entry) for part in parts]


def make_policy(spec: PolicySpec, entry: BackboneEntry) -> Policy:
    """The policy of a line that was read.

    Raises:
        InputError, AsyncDiffError: as `parse_policy`.
    """
    from asyncdiff_cli.engine.policies import FixedDeviation, ScheduledDeviation, Synchronous
    from asyncdiff_cli.engine.rivals import Combined, DetailDaemon, TimeShift, VelocityScale
    from asyncdiff_cli.engine.spectral import SpectralDeviation

    if spec.name in MODULES:
        return _module(spec, entry)
    if spec.source is not None:
        from asyncdiff_cli.engine.schedule_file import Schedule

        return Schedule.load(expanded(spec.source)).policy()
    makers: dict[str, Callable[..., Any]] = {
        "baseline": Synchronous,
        "fixed": FixedDeviation,
        "schedule": lambda *deviations: ScheduledDeviation(deviations),
        "spectral": SpectralDeviation,
        "detail-daemon": DetailDaemon,
        "velocity-scale": VelocityScale,
        "time-shift": TimeShift,
        "combined": Combined,
    }
    return makers[spec.name](*spec.values)


@lru_cache(maxsize=4)
def load_learned(source: str) -> LearnedDeviation:
    """As `LearnedDeviation.load`, once for all prompts that name it."""
    from asyncdiff_cli.engine.learned import LearnedDeviation

    return LearnedDeviation.load(source)


def plain(value: float) -> str:
    """The shortest decimal that is this number: 1, 0.5."""
    return repr(float(value)).removesuffix(".0")


def _module(spec: PolicySpec, entry: BackboneEntry) -> LearnedDeviation:
    shipped = {"learned": entry.tpm, "lifted": entry.lifted}
    if spec.source is None and shipped[spec.name] is None:
        raise InputError(
            f"no {spec.name} module is shipped for {entry.name}: train one with"
            f" `asyncdiff train`, or give {KINDS[spec.name].example}"
        )
    own = entry.name if spec.name == "learned" else f"{entry.name}:lifted"
    policy = load_learned(own if spec.source is None else spec.source)
    if spec.name == "lifted" and policy.bound != 1:
        raise InputError(
            f"the module in {policy.source} has the bound {policy.bound:g}, and a lifted one has 1:"
            f" name it learned:{policy.source}"
        )
    return policy


def is_schedule_file(text: str) -> bool:
    """Whether a policy's line, without its γ, names a schedule file."""
    name, _, value = text.partition(":")
    return name == "schedule" and value.endswith(".json") and value.isprintable()


def _split_gamma(text: str) -> tuple[str, float | None]:
    """What is before the last @, and the number after it. The place of a module may hold an @."""
    rest, at, tail = text.rpartition("@")
    if not at:
        return text, None
    gamma = _number(tail)
    named = rest.partition(":")[0] in MODULES and ":" in rest
    if gamma is None and (named or is_schedule_file(text)):
        return text, None
    if gamma is None:
        raise InputError(f"policy {text!r}: gamma is a number, not {tail!r}")
    check_gamma(gamma)
    return rest, gamma


def _numbers(name: str, value: str | None) -> tuple[float, ...]:
    """The checked numbers of a value; None is one that was not given."""
    kind = KINDS[name]
    if value is None and (kind.default is not None or not kind.checks):
        return () if kind.default is None else (kind.default,)
    if not kind.checks:
        raise InputError(f"policy {name} takes no value")
    if not value:
        raise InputError(f"policy {name} needs a value, such as {kind.example}")
    texts = value.split("/")
    checks: Sequence[Callable[[float], None]] = kind.checks * (len(texts) if kind.any_length else 1)
    if len(texts) != len(checks):
        count = f"{len(checks)} numbers" if len(checks) > 1 else "one number"
        raise InputError(f"policy {name} takes {count}, such as {kind.example}, not {value!r}")
    numbers = []
    for text, check in zip(texts, checks, strict=True):
        number = _number(text)
        if number is None:
            raise InputError(f"policy {name}: {text!r} is not a number")
        try:
            check(number)
        except InputError as error:
            raise InputError(f"policy {name}: {error}") from None
        numbers.append(number)
    return tuple(numbers)


def _number(text: str) -> float | None:
    try:
        return float(text) + 0.0  # a zero without its sign
    except ValueError:
        return None
