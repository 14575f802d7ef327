"""Text of anyone's, as it can be shown and written anywhere."""

from __future__ import annotations

import re

UNSAFE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What moves a terminal's cursor, changes its colours or the direction of writing, or is no
Unicode: all control characters but the tab and the new line, and halves of surrogate pairs."""


def visible(text: str) -> str:
    """The text with what is unsafe to show as escapes, such as `\\x1b`."""
    return UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)
