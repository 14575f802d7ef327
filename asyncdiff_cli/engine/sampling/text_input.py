"""What the images of a call of `sample` are drawn from, with a backbone's defaults."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters import Guidance, TextConditions
from asyncdiff_cli.engine.backbones.adapters.encoding import encode
from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.registry import BackboneEntry
from asyncdiff_cli.engine.backbones.sequences import join_sequences
from asyncdiff_cli.engine.checks import check_number
from asyncdiff_cli.engine.errors import AsyncDiffWarning, InputError
from asyncdiff_cli.engine.sampling.arguments import (
    TextOptions,
    check_encoders,
    check_length,
    check_text,
)


def guidance_of(backbone: Backbone, scale: float | None, true_cfg: float | None) -> Guidance:
    """The guidance that was asked for, else the backbone's."""
    scale = backbone.entry.guidance(scale)
    guidance = Guidance(scale, scale if true_cfg is None else true_cfg)
    check_number("guidance_scale", guidance.scale)
    check_number("true_cfg_scale", guidance.true_cfg)
    return guidance


@dataclass(frozen=True)
class TextInput:
    """What the images of a call are drawn from: texts, or embeddings in their place."""

    prompts: list[str] | None
    negatives: Sequence[str] | None
    given: Mapping[str, Tensor | None]
    """The fields of the conditions that are given in place of texts."""
    batch: int
    """How many images there are."""
    max_sequence_length: int | None

    @classmethod
    def of(
        cls, backbone: Backbone, prompts: str | Sequence[str] | None, options: TextOptions
    ) -> TextInput:
        """What `sample` was given, with the backbone's defaults."""
        adapter, entry = backbone.adapter, backbone.entry
        length = options.get("max_sequence_length")
        length = entry.max_sequence_length if length is None else length
        check_length(length)
        texts = [prompts] if isinstance(prompts, str) else prompts
        negative, given = options.get("negative_prompt"), _given(options)
        if negative is None and given["negative_prompt_embeds"] is None:
            negative = entry.negative_prompt
        texts = None if texts is None else list(texts)
        batch = check_text(texts, negative, given, adapter.has_pooled, adapter.has_mask)
        negatives = [negative] * batch if isinstance(negative, str) else negative
        return cls(texts, negatives, given, batch, length)

    def encode(self, backbone: Backbone, guidance: Guidance) -> TextConditions:
        """The conditions of both branches, with a warning for a negative prompt without effect."""
        adapter, entry = backbone.adapter, backbone.entry
        negative_given = self.given["negative_prompt_embeds"] is not None
        do_cfg = adapter.does_cfg(guidance, self.negatives is not None or negative_given)
        if self.prompts is not None or (do_cfg and not negative_given):
            check_encoders(backbone.pipe, adapter.has_pooled)
        if not do_cfg:
            warn_of_no_effect(entry, self.negatives or ())
        return encode(
            adapter, self.prompts, self.negatives, self.given, do_cfg, self.max_sequence_length
        )


def warn_of_no_effect(entry: BackboneEntry, negatives: Sequence[str]) -> None:
    """Warn of negative prompts where a model has no branch for them, if they are a user's own."""
    if any(text and text != entry.negative_prompt for text in negatives):
        warnings.warn(
            f"the negative prompt has no effect: {entry.name} uses none at this guidance",
            AsyncDiffWarning,
            stacklevel=5,
        )


def _given(options: TextOptions) -> dict[str, Tensor | None]:
    """The embeddings, each branch as one tensor, with the mask of where it is not padding."""
    given: dict[str, Tensor | None] = {
        "pooled_prompt_embeds": options.get("pooled_prompt_embeds"),
        "negative_pooled_prompt_embeds": options.get("negative_pooled_prompt_embeds"),
    }
    given["prompt_embeds"], given["prompt_embeds_mask"] = _batched(
        options.get("prompt_embeds"), options.get("prompt_embeds_mask")
    )
    given["negative_prompt_embeds"], given["negative_prompt_embeds_mask"] = _batched(
        options.get("negative_prompt_embeds"), options.get("negative_prompt_embeds_mask")
    )
    return given


def _batched(
    embeds: Tensor | Sequence[Tensor] | None, mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Embeddings as one tensor, and where it is not padding; also those in a list."""
    if embeds is None or isinstance(embeds, Tensor):
        return embeds, None if mask is None else mask.bool()
    if mask is not None:
        raise InputError("a mask belongs to embeddings in one tensor, not to a list of them")
    return join_sequences([sequence[None] for sequence in embeds], [None] * len(embeds))
