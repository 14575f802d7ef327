"""What the timestep prediction module sees of a run (AsyncDiff, Eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asyncdiff_cli.engine.policies.base import StepState

PADDING = -torch.inf
"""All channels of a token of the text that is none. A mask of its own would have to be kept, and
padded, beside every batch of observations."""


@dataclass(frozen=True)
class Observation:
    """What the module sees of S decisions of B images (Eq. 7). The text is the same at each."""

    latents: Tensor
    """x_k, [S, B, C, H, W]."""
    velocity: Tensor
    """v*_k, [S, B, C, H, W]."""
    sigma: Tensor
    """t_k, fp32 [S, B]; so are the next three."""
    sigma_next: Tensor
    """t_{k+1}."""
    cond_sigma: Tensor
    """t*_k."""
    progress: Tensor
    """k / K, so that one module serves several K."""
    prompt_embeds: Tensor
    """[B, tokens, channels], with `PADDING`."""
    pooled_prompt_embeds: Tensor
    """[B, channels]."""

    @classmethod
    def of(cls, state: StepState) -> Observation:
        """One decision, S = 1; packed latents are laid out in 2-D again."""
        batch, embeds = len(state.latents), state.prompt_embeds
        if state.prompt_embeds_mask is not None:
            embeds = embeds.masked_fill(~state.prompt_embeds_mask[..., None], PADDING)

        def per_image(value: Tensor | float) -> Tensor:
            if not isinstance(value, Tensor):  # a GPU is waited for if a number is copied to it
                value = torch.full([], value, device=state.latents.device)
            return value.float().expand(batch)[None]

        return cls(
            latents=unpacked(state.latents, state.token_grid)[None],
            velocity=unpacked(state.velocity, state.token_grid)[None],
            sigma=per_image(state.sigma),
            sigma_next=per_image(state.sigma_next),
            cond_sigma=per_image(state.cond_sigma),
            progress=per_image(state.index / state.num_evaluations),
            prompt_embeds=embeds,
            pooled_prompt_embeds=state.pooled_prompt_embeds,
        )

    @classmethod
    def stack(cls, decisions: Sequence[Observation]) -> Observation:
        """Successive decisions of the same images as one, S = their number."""
        series = {n: torch.cat([getattr(d, n) for d in decisions]) for n in cls._series()}
        return replace(decisions[0], **series)

    @classmethod
    def join(cls, batches: Sequence[Observation]) -> Observation:
        """The images of several batches of the same S as one batch."""
        texts = [text for batch in batches for text in batch.prompt_embeds]
        return cls(
            **{n: torch.cat([getattr(b, n) for b in batches], dim=1) for n in cls._series()},
            prompt_embeds=pad_sequence(texts, batch_first=True, padding_value=PADDING),
            pooled_prompt_embeds=torch.cat([batch.pooled_prompt_embeds for batch in batches]),
        )

    def select(self, images: Sequence[int]) -> Observation:
        """The observation of some of the images, by their places."""
        chosen = list(images)
        return replace(
            self,
            **{name: getattr(self, name)[:, chosen] for name in self._series()},
            prompt_embeds=self.prompt_embeds[chosen],
            pooled_prompt_embeds=self.pooled_prompt_embeds[chosen],
        )

    def first(self) -> Observation:
        """The first decision alone."""
        return replace(self, **{name: getattr(self, name)[:1] for name in self._series()})

    @staticmethod
    def _series() -> tuple[str, ...]:
        return "latents", "velocity", "sigma", "sigma_next", "cond_sigma", "progress"


def unpacked(latents: Tensor, token_grid: tuple[int, int] | None) -> Tensor:
    """Latents as [B, C, H, W]. Packed ones are [B, rows·columns, 4C], tokens of 2×2 places.

    Args:
        token_grid: rows and columns of the packed tokens; None for latents that are not packed.
    """
    if token_grid is None:
        return latents
    rows, columns = token_grid
    tokens = latents.unflatten(1, (rows, columns)).unflatten(3, (-1, 2, 2))
    return tokens.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
