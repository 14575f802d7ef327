"""A text encoder, as prompts come to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reader:
    """A text encoder, as a prompt comes to it.

    Attributes:
        name: what to call it.
        tokenizer: one that knows where in a text its tokens are; others are not asked.
        limit: its tokens, the special ones among them.
        template: what is made of a prompt before it is cut.
    """

    name: str
    tokenizer: Any
    limit: int
    template: Callable[[str], str] = str

    def cut(self, prompt: str) -> list[int] | None:
        """Where in a prompt the tokens begin that are cut; None if it does not read this one."""
        text = self.template(prompt)
        start, room = text.find(prompt), self.limit - self.tokenizer.num_special_tokens_to_add()
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        places = [(n, begin - start) for n, (begin, _) in enumerate(encoded["offset_mapping"])]
        own = [(n, place) for n, place in places if 0 <= place < len(prompt)]
        return [place for n, place in own if n >= room] if own else None
