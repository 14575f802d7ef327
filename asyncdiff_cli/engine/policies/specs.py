"""Policies as they are written on a command line: `NAME[:VALUE][@GAMMA]`.

`policies.table` lists them. Reading a line needs no torch; making its policy does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from asyncdiff_cli.engine.backbones.registry import BackboneEntry
from asyncdiff_cli.engine.checks import check_choice, check_gamma
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.modules import check_module, check_suits, shipped_source
from asyncdiff_cli.engine.policies.table import (
    POLICIES,
    SCHEDULE_FILE,
    as_number,
    repository_of,
)
from asyncdiff_cli.engine.repository import COMMIT

if TYPE_CHECKING:
    from asyncdiff_cli.engine.policies.base import Policy
    from asyncdiff_cli.engine.policies.learned import LearnedDeviation


class ChosenPolicy(NamedTuple):
    """A policy that was asked for by a line."""

    label: str
    """The line without its γ, numbers at their shortest and defaults left out."""
    policy: Policy
    gamma: float


ALIASES = {"synchronous": "baseline"}


@dataclass(frozen=True)
class PolicySpec:
    """A line that was read."""

    name: str
    values: tuple[float, ...] = ()
    """Its numbers; the default where there is one and none was given."""
    source: str | None = None
    """Where its module or file is; None for the module that the backbone ships."""
    gamma: float | None = None

    @property
    def label(self) -> str:
        """The line without its γ, numbers at their shortest and defaults left out."""
        if self.source is not None:
            return f"{self.name}:{self.source}"
        if not self.values or self.values == (POLICIES[self.name].default,):
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
    check_choice("policy", name, [*(n for n, row in POLICIES.items() if row.usage), *ALIASES])
    if POLICIES[name].takes_module:
        if colon and not value:
            raise InputError(f"policy {name}: there is nothing after the colon")
        if not value.isprintable():
            raise InputError(f"policy {name}: {value!r} is not a place")
        return PolicySpec(name, source=value or None, gamma=gamma)
    if is_schedule_file(rest) or in_repository(rest):
        return PolicySpec(name, source=value, gamma=gamma)
    return PolicySpec(name, _numbers(name, value if colon else None), gamma=gamma)


def shipped_policies(entry: BackboneEntry) -> list[str]:
    """A line for each policy that a backbone can be drawn with without a file of one's own."""
    return [
        row.example if row.checks and row.default is None else name
        for name, row in POLICIES.items()
        if row.usage is not None and not row.made_by
        if not row.takes_module or name in entry.modules
    ]


def find_policy(text: str) -> PolicySpec:
    """Read as `read_policy` does a policy whose module or file is there; no repository is asked.

    Raises:
        InputError, AsyncDiffError: as `read_policy`, `check_module` and `PolicyRow.check_file`.
    """
    spec = read_policy(text)
    if spec.source is not None and POLICIES[spec.name].takes_module:
        check_module(spec.source)
    elif spec.source is not None:
        POLICIES[spec.name].check_file(spec.source)
    return spec


def check_policy_of(spec: PolicySpec, entry: BackboneEntry) -> None:
    """A policy can be made for a backbone, as far as that is told without its weights.

    Raises:
        InputError, AsyncDiffError: as `find_policy`; for a backbone that ships no such module, or
            a module of another bound.
    """
    if not POLICIES[spec.name].takes_module:
        return
    config = check_module(source := _module_source(spec, entry))
    if config is not None:
        check_suits(spec.name, source, config)


def parse_policy(text: str, entry: BackboneEntry) -> ChosenPolicy:
    """The policy that `NAME[:VALUE][@GAMMA]` asks for on a backbone; γ is 1 if none is given.

    Raises:
        InputError: as `read_policy`, and for a module that is not there or has another bound.
        AsyncDiffError: for a module that cannot be fetched or is damaged.

    Example:
        >>> label, policy, gamma = parse_policy("velocity-scale:0.8@1.5", REGISTRY["mini"])
        >>> label, policy, gamma
        ('velocity-scale:0.8', VelocityScale(scale=0.8), 1.5)
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
    row = POLICIES[spec.name]
    if row.takes_module:
        return _module(spec, entry)
    if spec.source is not None:
        return row.read(spec.source)
    return row.make(*spec.values)


@lru_cache(maxsize=4)
def load_learned(source: str) -> LearnedDeviation:
    """Load as `LearnedDeviation.load` does, once for all prompts that name it."""
    from asyncdiff_cli.engine.policies.learned import LearnedDeviation

    return LearnedDeviation.load(source)


def plain(value: float) -> str:
    """The shortest decimal that is this number: 1, 0.5."""
    return repr(float(value)).removesuffix(".0")


def _module(spec: PolicySpec, entry: BackboneEntry) -> LearnedDeviation:
    policy = load_learned(_module_source(spec, entry))
    check_suits(spec.name, policy.source, policy.tpm)
    return policy


def _module_source(spec: PolicySpec, entry: BackboneEntry) -> str:
    """Where the module of a policy is, as `find_module` takes it.

    Raises:
        InputError: for that of a backbone that ships none.
    """
    if spec.source is not None:
        return spec.source
    if spec.name not in entry.modules:
        raise InputError(
            f"no {spec.name} module is shipped for {entry.name}: train one with"
            f" `asyncdiff train`, or give {POLICIES[spec.name].example}"
        )
    return shipped_source(entry.name, spec.name)


def takes_module(text: str) -> bool:
    """Whether a policy's line, whatever is behind its name, is for the place of a module."""
    name = text.partition(":")[0]
    return name in POLICIES and POLICIES[name].takes_module


def is_schedule_file(text: str) -> bool:
    """Whether a policy's line, without its γ, names a schedule file."""
    name, _, value = text.partition(":")
    row = POLICIES.get(name)
    takes_file = row is not None and row.takes_file
    return takes_file and value.endswith(SCHEDULE_FILE) and value.isprintable()


def in_repository(text: str) -> bool:
    """Whether a policy's line, without its γ, names a hub repository that holds its file."""
    name, _, value = text.partition(":")
    row = POLICIES.get(name)
    return row is not None and row.takes_file and value.isprintable() and bool(repository_of(value))


def pinned(text: str) -> str:
    """A policy's line, without its γ, with the commit of the repository that its file is in.

    Raises:
        InputError, AsyncDiffError: as `PolicyRow.locate`.
    """
    if not in_repository(text):
        return text
    name, _, value = text.partition(":")
    return f"{name}:{POLICIES[name].locate(value)[1]}"


def _split_gamma(text: str) -> tuple[str, float | None]:
    """What is before the last @, and the number after it. The place of a module may hold an @.

    A commit is no number, though it may have no letter.
    """
    rest, at, tail = text.rpartition("@")
    if not at:
        return text, None
    gamma = None if COMMIT.fullmatch(tail) else as_number(tail)
    named = ":" in rest and takes_module(rest)
    if gamma is None and (named or is_schedule_file(text) or in_repository(text)):
        return text, None
    if gamma is None:
        raise InputError(f"policy {text!r}: gamma is a number, not {tail!r}")
    check_gamma(gamma)
    return rest, gamma


def _numbers(name: str, value: str | None) -> tuple[float, ...]:
    """The checked numbers of a value; None is one that was not given."""
    row = POLICIES[name]
    if row.takes_file and not row.checks:
        raise InputError(f"policy {name} needs a schedule file, such as {row.example}")
    if value is None and (row.default is not None or not row.checks):
        return () if row.default is None else (row.default,)
    if not row.checks:
        raise InputError(f"policy {name} takes no value")
    if not value:
        raise InputError(f"policy {name} needs a value, such as {row.example}")
    texts = value.split("/")
    several = len(row.checks)
    times = max(1, len(texts) // several) if row.any_length else 1
    checks: Sequence[Callable[[float], None]] = row.checks * times
    if len(texts) != len(checks):
        count = f"{several} numbers" if several > 1 else "one number"
        count = f"{count} for each decision" if row.any_length else count
        raise InputError(f"policy {name} takes {count}, such as {row.example}, not {value!r}")
    numbers = []
    for text, check in zip(texts, checks, strict=True):
        number = as_number(text)
        if number is None:
            raise InputError(f"policy {name}: {text!r} is not a number")
        try:
            check(number)
        except InputError as error:
            raise InputError(f"policy {name}: {error}") from None
        numbers.append(number)
    return tuple(numbers)
