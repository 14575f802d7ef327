"""How much of a prompt the text encoders read: they cut what is beyond their limits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning
from asyncdiff_cli.engine.text import one_line, shortened

if TYPE_CHECKING:
    from asyncdiff_cli.engine.adapters.base import Adapter, TextConditions

SHOWN = 40
"""Characters of a prompt that a warning shows."""


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


def encode(
    adapter: Adapter,
    prompts: list[str] | None,
    negatives: Sequence[str] | None,
    given: Mapping[str, Tensor | None],
    do_cfg: bool,
    max_sequence_length: int | None,
) -> TextConditions:
    """As `Adapter.encode`, with warnings as `warn_of_cuts`.

    Raises:
        AsyncDiffError: if the tokenizers and encoders do not fit one another.
    """
    texts = [*(prompts or ()), *((negatives or ()) if prompts and do_cfg else ())]
    try:
        warn_of_cuts(adapter.readers(max_sequence_length) if texts else (), texts)
        return adapter.encode(prompts, negatives, given, do_cfg, max_sequence_length)
    except (AsyncDiffError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # for parts of other models the libraries raise any class
        if not texts:
            raise
        raise AsyncDiffError(
            f"the text encoders of this {type(adapter.pipe).__name__} cannot read a prompt: a"
            f" tokenizer or a configuration is damaged, or of another model ({one_line(error)})"
        ) from error


def warn_of_cuts(readers: Sequence[Reader], prompts: Iterable[str]) -> None:
    """Warn, a line each, of the prompts of which no encoder reads all.

    Where several read a prompt, what one of them cuts another may read: SD3's CLIPs end at 77
    tokens, and T5 goes on.
    """
    fast = [reader for reader in readers if reader.tokenizer.is_fast]
    for prompt in dict.fromkeys(prompts):
        cuts = [(own, reader) for reader in fast if (own := reader.cut(prompt)) is not None]
        if not cuts or not all(own for own, _ in cuts):
            continue
        lost, reader = max(cuts, key=lambda cut: cut[0][0])
        warnings.warn(
            f"{reader.name} takes {reader.limit} tokens: the last {len(lost)} of"
            f" {shortened(prompt, SHOWN)!r} are cut, from"
            f" {shortened(_word(prompt, lost[0]), SHOWN)!r} on",
            AsyncDiffWarning,
            stacklevel=3,
        )


def _word(text: str, place: int) -> str:
    """The word that a place is in or before."""
    while place and not text[place - 1].isspace():
        place -= 1
    return next(iter(text[place:].split()), "")
