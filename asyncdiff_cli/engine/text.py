"""Text of anyone's, as it can be shown and written anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

UNSAFE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What moves a terminal's cursor, changes its colours or the direction of writing, or is no
Unicode: all control characters but the tab and the new line, and halves of surrogate pairs."""


def visible(text: str) -> str:
    """The text with what is unsafe to show as escapes, such as `\\x1b`."""
    return UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def as_typed(argument: str) -> str:
    """An argument in UTF-8, also where the locale is ASCII and Python holds its bytes apart."""
    try:
        return argument.encode(errors="surrogateescape").decode()
    except UnicodeError:
        return argument


CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
RAISED = re.compile(r"\b(?:\w+\.)*\w+(?:Error|Exception): ")
"""What messages of libraries hold of the errors that they come of."""


def one_line(message: object, longest: int = 300) -> str:
    """What an error says, or any text, without its line breaks, and not all of a long one.

    Classes are called by their names alone, and those of errors not at all.
    """
    text = RAISED.sub("", CLASS.sub(r"\1", " ".join(str(message).split())))
    return text[:longest]


def shortened(text: str, longest: int) -> str:
    """The text, or so many characters of a longer one with the mark of what is left out."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def both_ends(text: str, longest: int = 2000) -> str:
    """The text, or the beginning and the end of a longer one, so many characters in all."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[: half - 1]}…{text[-half:]}"


def first_few(problems: Sequence[str], count: int = 3) -> str:
    """The first of several problems, and how many more there are."""
    more = f" and {len(problems) - count} more" if len(problems) > count else ""
    return f"{'; '.join(problems[:count])}{more}"
