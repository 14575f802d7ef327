"""The judge: a small detector of mini's world.

It says which things a picture shows, where, in which colour, and on which ground (`answers` turns
that into answers to a prompt); its features serve the Fréchet distance `fid_judge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, GROUNDS, ITEM_COLOURS, THINGS

GRID = 16  # cells on a side, one of which holds the centre of a thing
PEAKS = 8  # things that are looked for in a picture


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with group norm around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        norms = [nn.GroupNorm(max(1, outputs // 16), outputs) for _ in range(2)]
        nn.init.zeros_(norms[1].weight)
        self.norms = nn.ModuleList(norms)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, outputs, H/stride, W/stride] of `x` [B, inputs, H, W]."""
        inner = functional.silu(self.norms[0](self.first(x)))
        return functional.silu(self.shortcut(x) + self.norms[1](self.second(inner)))


@dataclass(frozen=True)
class Seen:
    """What the judge sees in pictures, as logits.

    Attributes:
        presence: [B, G, G], of a thing's centre in each cell.
        thing: [B, things, G, G].
        colour: [B, item colours, G, G].
        centre: [B, 2, G, G], x and y from the middle of the cell, in cells.
        ground: [B, grounds].
        ground_colour: [B, colours].
        features: [B, F] for the Fréchet distance.
    """

    presence: Tensor
    thing: Tensor
    colour: Tensor
    centre: Tensor
    ground: Tensor
    ground_colour: Tensor
    features: Tensor


class JudgeNet(nn.Module):
    """A convolutional pyramid with a head per cell and a head for the whole picture."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        first, second, third, last = widths
        self.stem = nn.Conv2d(3, first, 5, 2, 2)
        self.stages = nn.ModuleList(
            [
                ResidualBlock(first, first),
                nn.Sequential(ResidualBlock(first, second, 2), ResidualBlock(second, second)),
                nn.Sequential(ResidualBlock(second, third, 2), ResidualBlock(third, third)),
                nn.Sequential(ResidualBlock(third, last, 2), ResidualBlock(last, last)),
            ]
        )
        self.lateral = nn.Conv2d(last, third, 1)
        self.merge = ResidualBlock(third, third)
        self.sizes = (1, len(THINGS), len(ITEM_COLOURS), 2)
        self.cell = nn.Conv2d(third, sum(self.sizes), 1)
        assert self.cell.bias is not None
        nn.init.constant_(self.cell.bias[:1], -4.0)
        self.whole_sizes = (len(GROUNDS), len(COLOURS))
        self.whole = nn.Linear(last + third, sum(self.whole_sizes))

    def levels(self, pictures: Tensor) -> list[Tensor]:
        """Feature maps [B, C, H/s, W/s] of pictures [B, 3, H, W]: s is 2, 4, 8 and 16."""
        maps = [functional.silu(self.stem(pictures))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, pictures: Tensor) -> Seen:
        """What is seen in pictures [B, 3, 128, 128] in [-1, 1]."""
        *_, fine, coarse = self.levels(pictures)
        features = torch.cat((coarse.mean((2, 3)), fine.mean((2, 3))), 1)
        raised = functional.interpolate(self.lateral(coarse), scale_factor=2, mode="nearest")
        cells = self.cell(self.merge(fine + raised)).float()
        presence, thing, colour, centre = cells.split(self.sizes, 1)
        ground, tint = self.whole(features).float().split(self.whole_sizes, 1)
        return Seen(presence[:, 0], thing, colour, centre, ground, tint, features.float())


@dataclass(frozen=True)
class Found:
    """Things in one picture, at most `PEAKS`, and its ground: probabilities.

    Attributes:
        presence: [P].
        thing: [P, things].
        colour: [P, item colours].
        x, y: [P], shares of the side.
        ground: [grounds].
        ground_colour: [colours].
    """

    presence: Tensor
    thing: Tensor
    colour: Tensor
    x: Tensor
    y: Tensor
    ground: Tensor
    ground_colour: Tensor


def find(seen: Seen) -> list[Found]:
    """The local maxima of presence in each picture."""
    presence = seen.presence.sigmoid()
    highest = functional.max_pool2d(presence, 3, 1, 1)
    peaks, place = (presence * (presence == highest)).flatten(1).topk(PEAKS)
    index = torch.arange(len(place), device=place.device)[:, None]
    row, column = place // GRID, place % GRID
    thing = seen.thing[index, :, row, column].softmax(-1)
    colour = seen.colour[index, :, row, column].softmax(-1)
    centre = seen.centre[index, :, row, column]
    x = (column + 0.5 + centre[..., 0]) / GRID
    y = (row + 0.5 + centre[..., 1]) / GRID
    whole = seen.ground.softmax(-1), seen.ground_colour.softmax(-1)
    columns = [t.cpu() for t in (peaks, thing, colour, x, y, *whole)]
    return [Found(*each) for each in zip(*columns, strict=True)]


@torch.no_grad()
def look(judge: JudgeNet, pictures: Tensor, batch: int = 256) -> tuple[list[Found], Tensor]:
    """What is found in pictures [N, 3, 128, 128] in [-1, 1], and their features [N, F]."""
    device = next(judge.parameters()).device
    found: list[Found] = []
    features = []
    for part in pictures.split(batch):
        seen = judge(part.to(device, torch.float32))
        found += find(seen)
        features.append(seen.features.cpu())
    return found, torch.cat(features)
