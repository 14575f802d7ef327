"""The timestep prediction module (AsyncDiff, section 3): a few tokens in, one Beta out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies import StepState

FREQUENCIES = 16
"""Sines and as many cosines of a number in [0, 1], with 0.5 to 64 periods."""
PADDING = -torch.inf
"""All channels of a token of the text that is none. A mask of its own would have to be kept, and
padded, beside every batch of observations."""
LOWEST = -80.0
"""The least x whose eˣ is told from 0 with room to spare in fp32: φ(x) − 1 stays above 0."""


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

        def each(value: Tensor | float) -> Tensor:
            if not isinstance(value, Tensor):  # a GPU is waited for if a number is copied to it
                value = torch.full([], value, device=state.latents.device)
            return value.float().expand(batch)[None]

        return cls(
            latents=unpacked(state.latents, state.grid)[None],
            velocity=unpacked(state.velocity, state.grid)[None],
            sigma=each(state.sigma),
            sigma_next=each(state.sigma_next),
            cond_sigma=each(state.cond_sigma),
            progress=each(state.index / state.num_evaluations),
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
        """Some of the images, by their places."""
        chosen = list(images)
        return replace(
            self,
            **{name: getattr(self, name)[:, chosen] for name in self._series()},
            prompt_embeds=self.prompt_embeds[chosen],
            pooled_prompt_embeds=self.pooled_prompt_embeds[chosen],
        )

    @staticmethod
    def _series() -> tuple[str, ...]:
        return "latents", "velocity", "sigma", "sigma_next", "cond_sigma", "progress"


def unpacked(latents: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Latents as [B, C, H, W]. Packed ones are [B, rows·columns, 4C], tokens of 2×2 places.

    Args:
        grid: rows and columns of the packed tokens; None for latents that are not packed.
    """
    if grid is None:
        return latents
    rows, columns = grid
    tokens = latents.unflatten(1, (rows, columns)).unflatten(3, (-1, 2, 2))
    return tokens.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def excess(x: Tensor) -> Tensor:
    """φ(x) − 1 > 0 (Eq. 17): 1 + x + x²/2 above 0, eˣ below; continuous with its derivative.

    φ itself would round eˣ away next to the 1, and a mode of two such parameters is 0/0.
    """
    positive = x.clamp(min=0)
    negative = torch.where(x > 0, 0.0, x)  # clamp(max=0) passes no gradient at 0, the start
    negative = negative.clamp(min=LOWEST)
    return torch.where(x > 0, 1 + positive + positive.square() / 2, negative.exp())


def mode(alpha_excess: Tensor, beta_excess: Tensor) -> Tensor:
    """r* = (α − 1)/(α + β − 2) (Eq. 18), in [0, 1], from α − 1 and β − 1."""
    return alpha_excess / (alpha_excess + beta_excess)


def fourier(x: Tensor) -> Tensor:
    """[…, 2·FREQUENCIES] sines and cosines of numbers in [0, 1]."""
    periods = torch.logspace(-1, 6, FREQUENCIES, base=2, device=x.device)
    angles = 2 * math.pi * x[..., None] * periods
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Block(nn.Module):
    """A transformer encoder layer without normalisation and drop-out.

    Both branches start at zero, so that depth leaves the tokens alone at first: halves of the heads
    and of the hidden units start equal and are read out with opposite signs (Zhang et al., 2020,
    "antisymmetrical initialization"). Unlike zero weights, these pass gradients to every layer from
    the first step on.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.attend = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        with torch.no_grad():
            for into, out, parts in ((self.project, self.attend, 3), (self.up, self.down, 1)):
                for values in (into.weight, into.bias):
                    first, second = values.unflatten(0, (parts, 2, -1)).unbind(1)
                    second.copy_(first)
                first, second = out.weight.chunk(2, dim=1)
                second.copy_(-first)
                out.bias.zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.project(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # written out: a GPU's fused kernels are not the same to the bit with and without gradients
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        tokens = tokens + self.attend((attention @ v).transpose(1, 2).flatten(2))
        return tokens + self.down(functional.gelu(self.up(tokens)))


class TimestepPredictionModule(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="asyncdiff",
    tags=["asyncdiff", "flow-matching", "text-to-image"],
):
    """Maps what is known after a step to the Beta distribution of the next ratio r* (Eq. 7, 17).

    Untrained, it answers α = β = 2 whatever it sees: its mode is 0.5, the synchronous sampler.
    It computes in fp32 and takes inputs of any dtype, height, width, text length and K.
    `save_pretrained` and `from_pretrained` keep it as safetensors and config.json.

    Args:
        latent_channels: C of the unpacked latents.
        prompt_channels, pooled_channels: of the two text embeddings.
        bound: of the deviation that it was trained for, 0.5 or 1 (Eq. 11, 13).
        width, layers, heads: of the transformer.
        patch_size: side of the latent patches that make a token.
        text_tokens: how many the sequence embedding is pooled into, by attention.
        global_tokens: how many the head reads.

    Raises:
        InputError: for a width that the heads do not divide, or an odd number of heads, which
            start in pairs.
    """

    def __init__(
        self,
        latent_channels: int,
        prompt_channels: int,
        pooled_channels: int,
        bound: float = 0.5,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
        patch_size: int = 8,
        text_tokens: int = 4,
        global_tokens: int = 4,
    ) -> None:
        super().__init__()
        if width % heads or heads % 2:
            raise InputError(f"heads are even and divide the width: not {heads} and {width}")
        self.bound, self.patch_size = bound, patch_size
        self.latent_channels = latent_channels
        features = 2 * FREQUENCIES
        self.patches = nn.Linear(3 * latent_channels * patch_size**2, width)
        self.places = nn.Linear(2 * features, width)
        self.pooled = nn.Linear(pooled_channels, width)
        self.sequence = nn.Linear(prompt_channels, width)
        self.queries = nn.Parameter(torch.randn(text_tokens, width))
        self.times = nn.ModuleList(
            nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
            for _ in ("cond_sigma", "sigma", "sigma_next", "progress")
        )
        self.readout = nn.Parameter(0.1 * torch.randn(global_tokens, width))
        out = nn.Linear(width, 2)
        self.head = nn.Sequential(nn.Linear(global_tokens * width, width), nn.SiLU(), out)
        for module in self.modules():  # nothing normalises: keep the variance of what comes in
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)
        nn.init.zeros_(out.weight)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    @property
    def device(self) -> torch.device:
        return self.readout.device

    def forward(
        self, seen: Observation, constant: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """α − 1 and β − 1 of each decision, fp32 [S, B], above 0.

        Args:
            constant: `self.constant(seen)`, where it is known.
        """
        decisions = len(seen.latents)
        text, places = self.constant(seen) if constant is None else constant
        patches, times = self._patches(seen) + places, self._times(seen)
        text = text.repeat(decisions, 1, 1)
        # What is seen reaches the head without the blocks too, which at first pass nothing on: else
        # the module would move all steps and images alike before it can tell them apart.
        seen_at_once = patches.mean(1) + text.mean(1) + times.sum(1)
        readout = self.readout + seen_at_once[:, None]
        sequence = torch.cat([patches, text, times, readout], dim=1)
        for block in self.blocks:
            sequence = block(sequence)
        out = self.head(sequence[:, -len(self.readout) :].flatten(1))
        alpha, beta = excess(out).unflatten(0, (decisions, -1)).unbind(-1)
        return alpha, beta

    def _patches(self, seen: Observation) -> Tensor:
        """A token per place: the patches of x, v and x̂0 there, [S·B, places, width]."""
        latents, velocity = (t.flatten(0, 1).float() for t in (seen.latents, seen.velocity))
        sigma = seen.sigma.flatten()[:, None, None, None]
        spatial = torch.cat([latents, velocity, desync.clean_estimate(latents, velocity, sigma)], 1)
        patch = self.patch_size
        height, width = spatial.shape[-2:]
        padding = (0, -width % patch, 0, -height % patch)
        places = functional.pixel_unshuffle(functional.pad(tame(spatial), padding), patch)
        return self.patches(places.flatten(2).mT)

    def constant(self, seen: Observation) -> tuple[Tensor, Tensor]:
        """What is the same at each decision of a run: the tokens of the text, [B, 1 + text_tokens,
        width], and where the patches are, [places, width]."""
        text = self._text(seen.prompt_embeds, seen.pooled_prompt_embeds)
        sides = (-(-side // self.patch_size) for side in seen.latents.shape[-2:])
        rows, columns = (
            fourier((torch.arange(side, device=self.device) + 0.5) / side) for side in sides
        )
        grid = torch.cat(
            [
                rows[:, None].expand(-1, len(columns), -1),
                columns[None].expand(len(rows), -1, -1),
            ],
            dim=-1,
        )
        return text, self.places(grid.flatten(0, 1))

    def _text(self, sequence: Tensor, pooled: Tensor) -> Tensor:
        """Pooled embedding, and sequence pooled by attention, [B, 1 + text_tokens, width]."""
        padding = (sequence == PADDING).all(-1, keepdim=True)
        words = self.sequence(tame(sequence.masked_fill(padding, 0)))
        scores = self.queries @ words.mT / words.shape[-1] ** 0.5
        attention = scores.masked_fill(padding.mT, PADDING).softmax(-1)
        return torch.cat([self.pooled(tame(pooled))[:, None], attention @ words], dim=1)

    def _times(self, seen: Observation) -> Tensor:
        """[S·B, 4, width]."""
        values = seen.cond_sigma, seen.sigma, seen.sigma_next, seen.progress
        return torch.stack(
            [f(fourier(v.flatten())) for f, v in zip(self.times, values, strict=True)], dim=1
        )


def tame(x: Tensor) -> Tensor:
    """asinh in fp32: about x below 1, and few above 10. Text encoders have channels in the
    hundreds, and there is no normalisation that would bring them back."""
    return x.float().asinh()
