"""A trained timestep prediction module (AsyncDiff, section 3), as its file has it.

The arithmetic of `asyncdiff_cli.engine`'s `TimestepPredictionModule` at one step, operation for
operation, so that the same module decides the same here.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from typing import Any

import torch
from comfy.utils import load_torch_file
from torch import Tensor, nn
from torch.nn import functional

from .schedules import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FREQUENCIES = 16
"""Sines and as many cosines of a number in [0, 1], with 0.5 to 64 periods."""
LOWEST = -80.0
"""The least x whose eˣ is used."""
LARGEST = 1 << 16
DEVIATION_ALONE = ["deviation"]
"""Of any size in a module's configuration."""


@dataclass(frozen=True)
class Config:
    """A module's config.json: all sizes, and the bound of its deviation, in (0, 1].

    Raises:
        ValueError: for a value that none can have.
    """

    latent_channels: int
    prompt_channels: int
    pooled_channels: int
    bound: float
    width: int
    layers: int
    heads: int
    patch_size: int
    text_tokens: int
    global_tokens: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if name == "bound":
                fits = number and 0 < value <= 1
            else:
                fits = number and isinstance(value, int) and 1 <= value <= LARGEST
            if not fits:
                raise ValueError(f"its {name} cannot be {value!r}")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")


class Module(nn.Module):
    """The mode of the Beta distribution of the next ratio, as a deviation (Eq. 7, 17, 18)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, width = config, config.width
        features = 2 * FREQUENCIES
        self.patches = nn.Linear(3 * config.latent_channels * config.patch_size**2, width)
        self.places = nn.Linear(2 * features, width)
        self.pooled = nn.Linear(config.pooled_channels, width)
        self.sequence = nn.Linear(config.prompt_channels, width)
        self.queries = nn.Parameter(torch.empty(config.text_tokens, width))
        self.times = nn.ModuleList(
            nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
            for _ in ("cond_sigma", "sigma", "sigma_next", "progress")
        )
        self.readout = nn.Parameter(torch.empty(config.global_tokens, width))
        self.head = nn.Sequential(
            nn.Linear(config.global_tokens * width, width), nn.SiLU(), nn.Linear(width, 2)
        )
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))

    @torch.no_grad()
    def forward(
        self, latents: Tensor, velocity: Tensor, times: Tensor, sequence: Tensor, pooled: Tensor
    ) -> Tensor:
        """D of the next evaluation, fp32 [B], in [−bound, bound].

        Args:
            latents, velocity: x_k and v*_k, [B, C, H, W].
            times: t*_k, t_k, t_{k+1} and k/K, fp32 [4, B].
            sequence: the text's embeddings, [B, tokens, channels].
            pooled: [B, channels].
        """
        patches = self._patches(latents.float(), velocity.float(), times[1]) + self._places(latents)
        text = self._text(sequence, pooled)
        told = torch.stack(
            [f(fourier(value)) for f, value in zip(self.times, times, strict=True)], dim=1
        )
        seen_at_once = patches.mean(1) + text.mean(1) + told.sum(1)
        tokens = torch.cat([patches, text, told, self.readout + seen_at_once[:, None]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        out = excess(self.head(tokens[:, -len(self.readout) :].flatten(1)))
        alpha, beta = out.unbind(-1)
        return 2 * self.config.bound * (alpha / (alpha + beta) - 0.5)

    def _patches(self, latents: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
        """A token per place, of x, v and x̂0 there, [B, places, width]."""
        clean = latents - sigma[:, None, None, None] * velocity
        spatial, patch = torch.cat([latents, velocity, clean], 1).asinh(), self.config.patch_size
        height, width = spatial.shape[-2:]
        padded = functional.pad(spatial, (0, -width % patch, 0, -height % patch))
        return self.patches(functional.pixel_unshuffle(padded, patch).flatten(2).mT)

    def _places(self, latents: Tensor) -> Tensor:
        """Where the patches are, [places, width]."""
        sides = (-(-side // self.config.patch_size) for side in latents.shape[-2:])
        rows, columns = (
            fourier((torch.arange(side, device=latents.device) + 0.5) / side) for side in sides
        )
        both = (
            rows[:, None].expand(-1, len(columns), -1),
            columns[None].expand(len(rows), -1, -1),
        )
        return self.places(torch.cat(both, dim=-1).flatten(0, 1))

    def _text(self, sequence: Tensor, pooled: Tensor) -> Tensor:
        """Pooled embedding, and sequence pooled by attention, [B, 1 + text_tokens, width]."""
        words = self.sequence(sequence.float().asinh())
        attention = (self.queries @ words.mT / words.shape[-1] ** 0.5).softmax(-1)
        return torch.cat([self.pooled(pooled.float().asinh())[:, None], attention @ words], dim=1)


class Block(nn.Module):
    """A transformer encoder layer without normalisation and drop-out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.attend = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens [B, tokens, width] after the layer."""
        q, k, v = self.project(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        tokens = tokens + self.attend((attention @ v).transpose(1, 2).flatten(2))
        return tokens + self.down(functional.gelu(self.up(tokens)))


def fourier(x: Tensor) -> Tensor:
    """[…, 2·FREQUENCIES] sines and cosines of numbers in [0, 1]."""
    periods = torch.logspace(-1, 6, FREQUENCIES, base=2, device=x.device)
    angles = 2 * math.pi * x[..., None] * periods
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def excess(x: Tensor) -> Tensor:
    """φ(x) − 1 > 0 (Eq. 17): 1 + x + x²/2 above 0, eˣ below. `x` may be of any shape."""
    positive = x.clamp(min=0)
    return torch.where(x > 0, 1 + positive + positive.square() / 2, x.clamp(LOWEST, 0).exp())


def find_module(text: str) -> tuple[str, Config]:
    """The folder of a module and what its config.json says, by the folder's path as a user has it.

    Raises:
        ValueError: in one line, if there is none.
    """
    folder = os.path.expanduser(text.strip().strip("\"'"))
    if not folder:
        raise ValueError("there is no module: give the path of the folder that a training wrote")
    for name in (CONFIG, WEIGHTS):
        if not os.path.isfile(os.path.join(folder, name)):
            raise ValueError(
                f"{folder} holds no module: it has no {name}; give the whole path of a folder"
                " `tpm` that `asyncdiff train` wrote"
            )
    path = os.path.join(folder, CONFIG)
    try:
        return folder, _config(read_json(path, "configuration of a module"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _config(content: Any) -> Config:
    names = [field.name for field in fields(Config)]
    absent = [name for name in names if not isinstance(content, dict) or name not in content]
    if absent:
        raise ValueError(f"it says no {', '.join(absent)}")
    if (actions := content.get("actions", DEVIATION_ALONE)) != DEVIATION_ALONE:
        raise ValueError(f"the module decides {actions!r}, and this node deviations alone")
    return Config(**{name: content[name] for name in names})


def load_module(text: str) -> Module:
    """Load the module in a folder, in fp32 on the CPU.

    Raises:
        ValueError: in one line, if there is none, or its weights are damaged.
    """
    folder, config = find_module(text)
    path = os.path.join(folder, WEIGHTS)
    with torch.device("meta"):
        module = Module(config)
    try:
        weights = load_torch_file(path, safe_load=True)
        module.load_state_dict({name: w.float() for name, w in weights.items()}, assign=True)
    except Exception as error:  # a damaged file makes its reader raise any class
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} does not hold the module of its {CONFIG}: {first}") from None
    return module.eval()
