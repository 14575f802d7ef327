"""What is refused before anything starts. Every check raises InputError, one line."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Container, Iterable, Sequence
from numbers import Integral, Real

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.limits import MAX_COUNT, MAX_STEPS


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known, with the nearest one if there is one."""
    known = list(known)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(known)})"


def unknown_pipeline(class_name: str, known: Iterable[str]) -> str:
    """The message for a pipeline class without an adapter."""
    return (
        f"{unknown('pipeline class', class_name, known)}; to add one, put an Adapter for it into"
        " asyncdiff_cli.engine.backbones.adapters.ADAPTERS, as docs/extend.md shows"
    )


def check_choice(kind: str, name: str, known: Iterable[str]) -> None:
    """`name` is one of the known ones."""
    if name not in known:
        raise InputError(unknown(kind, str(name), known))


def may_be_repository(name: str) -> bool:
    """Whether a name can be that of a hub repository, OWNER/NAME, and is not written as a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


MAY_BE_EMPTY = {"--negative"}
"""Options of which the empty text says something: what is drawn without a prompt."""


def check_arguments(arguments: Sequence[str], options: Container[str]) -> None:
    """Check that no argument is empty or holds a NUL character.

    Args:
        options: those that take a value.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=")
        if not (equals and name in options):
            name, value = before if before in options else "", argument
        what = name or "an argument"
        if not value.strip() and name not in MAY_BE_EMPTY:
            raise InputError(f"{what} is empty: give it a value, or leave it out")
        if "\0" in value:
            raise InputError(f"{what} holds a NUL character")


def check_unicode(what: str, text: str) -> None:
    """Text holds only what a tokenizer takes: no half of a surrogate pair, and no NUL."""
    if "\0" in text:
        raise InputError(f"{what} holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        is_byte = "\udc80" <= text[error.start] <= "\udcff"  # as Python has one that it cannot read
        held = "a byte that is no UTF-8" if is_byte else "half a surrogate pair"
        raise InputError(f"{what} is not Unicode text: it holds {held}") from None


def check_gamma(gamma: float) -> None:
    """γ is a finite number."""
    check_number("gamma", gamma)


def check_number(what: str, value: float) -> None:
    """`value` is a finite number."""
    if not _is_number(value) or not math.isfinite(value):
        raise InputError(f"{what} is a finite number, not {value!r}")


def check_range(what: str, value: float, low: float, high: float) -> None:
    """`value` is a number in [low, high]; NaN is in none."""
    if not _is_number(value):
        raise InputError(f"{what} is a number, not {value!r}")
    if not low <= value <= high:
        raise InputError(f"{what} {value:g} is outside [{low:g}, {high:g}]")


def _is_number(value: object) -> bool:
    """Whether a value is a real number, and not a truth value, which Python counts among them."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_deviation(deviation: float, bound: float = 1.0) -> None:
    """D is at most one interval, or what the bound says."""
    check_range("deviation", deviation, -bound, bound)


def check_scale(scale: float) -> None:
    """ω is in the range of Eq. 20."""
    check_range("scale", scale, 0.5, 1.5)


def check_amount(amount: float) -> None:
    """Detail Daemon's t* = (1 − amount)·t is a time."""
    check_range("amount", amount, -1, 1)


def check_window(window: float) -> None:
    """A window reaches at most one interval to either side."""
    check_range("window", window, 0, 1)


def check_shift(shift: float) -> None:
    """A shift of the time that is told moves its log-SNR by at most log 10."""
    check_range("shift", shift, 0.1, 10)


def check_boost(weight: float) -> None:
    """The weight of a detail boost is in the range of RES4LYF's node."""
    check_range("weight", weight, -100, 100)


def check_weight(weight: float) -> None:
    """A weight is a finite number of at least 0."""
    check_range("weight", weight, 0, sys.float_info.max)


def check_steps(num_inference_steps: int) -> None:
    """Check that there is at least one whole step, and a number of them that ends."""
    whole = isinstance(num_inference_steps, int) and not isinstance(num_inference_steps, bool)
    if not whole or not 1 <= num_inference_steps <= MAX_STEPS:
        raise InputError(
            f"the number of steps is a whole number from 1 to {MAX_STEPS}, not"
            f" {num_inference_steps!r}"
        )


def check_count(option: str, value: int | None) -> None:
    """Check that there is at least one, and a number that ends; None is one that was not given."""
    if value is not None and not 1 <= value <= MAX_COUNT:
        raise InputError(f"{option} is a whole number from 1 to {MAX_COUNT:,}, not {value}")


def check_size(height: int, width: int, multiple: int, largest: int | None = None) -> None:
    """Height and width in pixels fit the VAE and the patches, and the places that a model knows."""
    for name, pixels in (("height", height), ("width", width)):
        if not isinstance(pixels, Integral):
            raise InputError(f"the {name} is a whole number of pixels, not {pixels!r}")
        if pixels < multiple or pixels % multiple:
            nearest = max(multiple, round(pixels / multiple) * multiple)
            raise InputError(
                f"the {name} is {pixels}, and this backbone needs a multiple of {multiple},"
                f" for example {nearest}"
            )
        if largest is not None and pixels > largest:
            raise InputError(f"the {name} is {pixels}, and this backbone draws at most {largest}")
