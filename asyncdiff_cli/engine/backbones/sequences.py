"""Prompts of several lengths as one batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def join_sequences(
    batches: Iterable[Tensor], masks: Iterable[Tensor | None]
) -> tuple[Tensor, Tensor | None]:
    """The sequences of several batches as one batch, padded with zeros to the longest.

    Args:
        batches: [B, tokens, channels] each, of any number of tokens.
        masks: where each is not padding, bool [B, tokens]; None for a batch without padding.

    Returns:
        [ΣB, tokens, channels], and where it is not padding, None if nowhere.
    """
    rows, kept = [], []
    for batch, mask in zip(batches, masks, strict=True):
        rows += list(batch)
        kept += list(batch.new_ones(batch.shape[:2], dtype=torch.bool) if mask is None else mask)
    mask = pad_sequence(kept, batch_first=True)
    return pad_sequence(rows, batch_first=True), None if mask.all() else mask


def mean_token(sequence: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the tokens [B, tokens, channels] that are not padding, [B, channels]."""
    if mask is None:
        return sequence.float().mean(1).to(sequence.dtype)
    kept = mask[..., None]
    total = sequence.float().masked_fill(~kept, 0).sum(1)
    return (total / kept.sum(1)).to(sequence.dtype)
