"""Prompts become conditions; what of a prompt no text encoder reads is said."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters.base import Adapter, TextConditions
from asyncdiff_cli.engine.backbones.adapters.reader import Reader
from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning
from asyncdiff_cli.engine.text import one_line, shortened

CHARACTERS_SHOWN = 40
"""Characters of a prompt that a warning shows."""


def encode(
    adapter: Adapter,
    prompts: list[str] | None,
    negatives: Sequence[str] | None,
    given: Mapping[str, Tensor | None],
    do_cfg: bool,
    max_sequence_length: int | None,
) -> TextConditions:
    """Encode as `Adapter.encode` does, and warn as `warn_of_cuts` does.

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
            f" {shortened(prompt, CHARACTERS_SHOWN)!r} are cut, from"
            f" {shortened(_word(prompt, lost[0]), CHARACTERS_SHOWN)!r} on",
            AsyncDiffWarning,
            stacklevel=3,
        )


def _word(text: str, place: int) -> str:
    """The word that a place is in or before."""
    while place and not text[place - 1].isspace():
        place -= 1
    return next(iter(text[place:].split()), "")
