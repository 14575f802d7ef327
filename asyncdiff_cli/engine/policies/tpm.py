"""The timestep prediction module (AsyncDiff, section 3): a few tokens in, a Beta an action out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.actions import DEVIATION, SPACING, check_actions, of_steps
from asyncdiff_cli.engine.policies.modules import LIBRARY, TAGS
from asyncdiff_cli.engine.policies.observation import PADDING, Observation

FREQUENCIES = 16
"""Sines and as many cosines of a number in [0, 1], with 0.5 to 64 periods."""
LOWEST = -80.0
"""The least x whose eˣ is told from 0 with room to spare in fp32: φ(x) − 1 stays above 0."""


def excess(x: Tensor) -> Tensor:
    """φ(x) − 1 > 0 (Eq. 17): 1 + x + x²/2 above 0, eˣ below; continuous with its derivative.

    φ itself would round eˣ away next to the 1, and a mode of two such parameters is 0/0. `x` may be
    of any shape.
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
        """The tokens [B, tokens, width] after the layer."""
        q, k, v = self.project(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # written out: a GPU's fused kernels are not the same to the bit with and without gradients
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        tokens = tokens + self.attend((attention @ v).transpose(1, 2).flatten(2))
        return tokens + self.down(functional.gelu(self.up(tokens)))


class TimestepPredictionModule(
    nn.Module,
    PyTorchModelHubMixin,
    library_name=LIBRARY,
    tags=[*TAGS],
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
        actions: what it decides at a step, of `ACTIONS`; the paper's has the deviation alone.

    Raises:
        InputError: for a width that the heads do not divide, an odd number of heads, which start
            in pairs, or unknown actions.

    Example:
        >>> tpm = TimestepPredictionModule(16, 4096, 2048, width=32, layers=1, heads=2)
        >>> LearnedDeviation(tpm).bound
        0.5
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
        actions: Sequence[str] = (DEVIATION,),
    ) -> None:
        super().__init__()
        try:
            self.actions = check_actions(actions)
        except ValueError as error:
            raise InputError(str(error)) from None
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
        out = nn.Linear(width, 2 * len(of_steps(self.actions)))
        self.head = nn.Sequential(nn.Linear(global_tokens * width, width), nn.SiLU(), out)
        grid_out = nn.Linear(width, 1) if SPACING in self.actions else None
        if grid_out is not None:
            self.step_ends = nn.Linear(2 * features, width)
            self.grid = nn.Sequential(nn.SiLU(), grid_out)
            self.read = nn.Linear(global_tokens * width, width)
        for module in self.modules():  # nothing normalises: keep the variance of what comes in
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)
        nn.init.zeros_(out.weight)
        if grid_out is not None:
            nn.init.zeros_(grid_out.weight)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    @property
    def device(self) -> torch.device:
        return self.readout.device

    def forward(
        self, seen: Observation, constant: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """α − 1 and β − 1 of each decision, fp32 [S, B], above 0.

        Of A actions it is [S·A, B], those of a decision one after the other.

        Args:
            constant: `self.constant(seen)`, where it is known.
        """
        decisions = len(seen.latents)
        out = self.head(self._read(seen, constant))
        betas = excess(out).unflatten(0, (decisions, -1)).unflatten(-1, (-1, 2))
        alpha, beta = betas.movedim(2, 1).flatten(0, 1).unbind(-1)
        return alpha, beta

    def lengths(self, seen: Observation, sigmas: Tensor) -> Tensor:
        """What the shares of the scheduler's steps but the first are weighed with, fp32 [B, K − 1].

        Above 0, and 1 untrained: φ − 1 of Eq. 17, of a step's two times and the first decision.

        Args:
            seen: of which the first decision counts.
            sigmas: t_0 … t_K, [K + 1].
        """
        ends = torch.stack([sigmas[1:-1], sigmas[2:]], dim=-1).float()
        steps = self.step_ends(fourier(ends).flatten(1))
        read = self.read(self._read(seen.first()))
        return excess(self.grid(read[:, None] + steps)[..., 0])

    def _read(self, seen: Observation, constant: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The global tokens after the blocks, [S·B, global_tokens·width]."""
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
        return sequence[:, -len(self.readout) :].flatten(1)

    def _patches(self, seen: Observation) -> Tensor:
        """A token per place: the patches of x, v and x̂0 there, [S·B, places, width]."""
        latents, velocity = (t.flatten(0, 1).float() for t in (seen.latents, seen.velocity))
        sigma = seen.sigma.flatten()[:, None, None, None]
        spatial = torch.cat([latents, velocity, desync.clean_estimate(latents, velocity, sigma)], 1)
        patch = self.patch_size
        height, width = spatial.shape[-2:]
        padding = (0, -width % patch, 0, -height % patch)
        places = functional.pixel_unshuffle(functional.pad(compress(spatial), padding), patch)
        return self.patches(places.flatten(2).mT)

    def constant(self, seen: Observation) -> tuple[Tensor, Tensor]:
        """What is the same at each decision of a run: the tokens of the text, [B, 1 + text_tokens,
        width], and where the patches are, [places, width]."""
        text = self._text(seen.prompt_embeds, seen.pooled_prompt_embeds)
        sides = (-(-side // self.patch_size) for side in seen.latents.shape[-2:])
        rows, columns = (
            fourier((torch.arange(side, device=self.device) + 0.5) / side) for side in sides
        )
        channels = torch.cat(
            [
                rows[:, None].expand(-1, len(columns), -1),
                columns[None].expand(len(rows), -1, -1),
            ],
            dim=-1,
        )
        return text, self.places(channels.flatten(0, 1))

    def _text(self, sequence: Tensor, pooled: Tensor) -> Tensor:
        """Pooled embedding, and sequence pooled by attention, [B, 1 + text_tokens, width]."""
        padding = (sequence == PADDING).all(-1, keepdim=True)
        words = self.sequence(compress(sequence.masked_fill(padding, 0)))
        scores = self.queries @ words.mT / words.shape[-1] ** 0.5
        attention = scores.masked_fill(padding.mT, PADDING).softmax(-1)
        return torch.cat([self.pooled(compress(pooled))[:, None], attention @ words], dim=1)

    def _times(self, seen: Observation) -> Tensor:
        """[S·B, 4, width]."""
        values = seen.cond_sigma, seen.sigma, seen.sigma_next, seen.progress
        return torch.stack(
            [f(fourier(v.flatten())) for f, v in zip(self.times, values, strict=True)], dim=1
        )


def compress(x: Tensor) -> Tensor:
    """asinh in fp32, of any shape: about x below 1, and few above 10. Text encoders have channels
    in the hundreds, and there is no normalisation that would bring them back."""
    return x.float().asinh()
