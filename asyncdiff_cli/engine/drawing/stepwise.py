"""What a run takes its images to be after each step, x̂0: seen, decoded, and put on a sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters.decoding import SLICE
from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.drawing.panel import TILE, make_panel
from asyncdiff_cli.engine.drawing.provenance import Provenance
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.specs import plain

MOST = 16
"""Steps on a sheet: of a longer run every nth is shown, and the last one always."""

Frames = Mapping[int, Image.Image]
"""x̂0 of some evaluations of an image, by their index k."""


@dataclass
class Estimates:
    """The times of a run, and x̂0 of its evaluations as latents, seen step by step.

    Attributes:
        dtype: what the latents are kept in: what they are decoded in.
        most: how many evaluations are kept, as of `MOST`; None for all.
        latents: x̂0_k of those that are kept by k, as the loop's latents [B, …], on the CPU.
    """

    dtype: torch.dtype
    most: int | None = None
    latents: dict[int, Tensor] = field(default_factory=dict)
    _times: list[Tensor] = field(default_factory=list)

    @property
    def sigmas(self) -> Tensor:
        """t_k of each evaluation, and the last time, which is not evaluated: [evaluations + 1]."""
        return torch.stack(self._times).cpu()

    def see(self, state: StepState) -> None:
        """Take in an evaluation; those of a run come in their order."""
        self._times[state.index :] = [state.sigma, state.sigma_next]
        left, most = state.num_evaluations - 1 - state.index, self.most or state.num_evaluations
        if left % -(-state.num_evaluations // most) == 0:
            self.latents[state.index] = state.clean.to("cpu", self.dtype)

    @torch.no_grad()
    def decode(self, backbone: Backbone, image: int, height: int, width: int) -> Frames:
        """Decode one image's estimates, no more of them at once than images were drawn."""
        if not self.latents:
            return {}
        latents = torch.stack([batch[image] for batch in self.latents.values()])
        at_once = min(SLICE, *(len(batch) for batch in self.latents.values()))
        decoded = backbone.adapter.decode(
            latents.to(backbone.device), height, width, "pil", at_once
        )
        backbone.pipe.maybe_free_model_hooks()
        return dict(zip(self.latents, decoded, strict=True))


def tiles(frames: Frames) -> Frames:
    """The same, no larger than they are shown on a sheet."""
    for image in frames.values():
        image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return frames


def make_sheet(rows: Sequence[tuple[Frames, Provenance]], labels: Sequence[str]) -> Image.Image:
    """Put the steps of runs of one noise below each other, with the times that each was told.

    Args:
        rows: the synchronous run, which was told t_k, and those that were told t*_k.
        labels: of the rows.
    """
    shown, record = rows[-1]
    first, *others = shown
    every = f"every {others[0] - first} steps" if others and others[0] > first + 1 else "each step"
    how = f"seed {record.seed}, {record.policy['name']}, γ = {plain(record.gamma)}"
    return make_panel(
        [list(frames.values()) for frames, _ in rows],
        columns=[f"step {k + 1}" for k in shown],
        rows=labels,
        title=f"{record.prompt} ({how}): x̂0 after {every}",
        captions=[
            [f"{symbol} {run.cond_sigmas[k]:.3f}" for k in frames]
            for symbol, (frames, run) in zip(("t", *["t*"] * len(rows)), rows, strict=False)
        ],
    )
