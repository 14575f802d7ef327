"""Stage ``judge``: a small detector of mini's world, trained on real scenes of a seed of its own.

It says which things a picture shows, where, in which colour, and on which ground
(`mini.answers` turns that into answers to a prompt); its features serve the Fréchet distance and
the perceptual losses.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mini.compose import Composer
from mini.scenes import ITEM_COLOURS, Batch, Scenes
from mini.settings import Settings
from mini.training import Budget, Run, adamw
from mini.vocabulary import COLOURS, GROUNDS, THINGS

GRID = 16  # cells on a side, one of which holds the centre of a thing
PEAKS = 8  # things that are looked for in a picture
NEAR = 0.3  # heat above which a cell learns what it lies on


class Block(nn.Module):
    """Two 3×3 convolutions with group norm around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(max(1, outputs // 16), outputs) for _ in range(2))
        nn.init.zeros_(self.norms[1].weight)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
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
                Block(first, first),
                nn.Sequential(Block(first, second, 2), Block(second, second)),
                nn.Sequential(Block(second, third, 2), Block(third, third)),
                nn.Sequential(Block(third, last, 2), Block(last, last)),
            ]
        )
        self.lateral = nn.Conv2d(last, third, 1)
        self.merge = Block(third, third)
        self.sizes = (1, len(THINGS), len(ITEM_COLOURS), 2)
        self.cell = nn.Conv2d(third, sum(self.sizes), 1)
        nn.init.constant_(self.cell.bias[:1], -4.0)
        self.whole = nn.Linear(last + third, len(GROUNDS) + len(COLOURS))

    def levels(self, pictures: Tensor) -> list[Tensor]:
        """Feature maps at a half, a quarter, an eighth and a sixteenth of the resolution."""
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
        whole = self.whole(features).float().split((len(GROUNDS), len(COLOURS)), 1)
        return Seen(presence[:, 0], thing, colour, centre, *whole, features.float())


def losses(seen: Seen, truth: Batch) -> dict[str, Tensor]:
    """CenterNet's focal loss for presence (Zhou et al., 2019), and cross entropies.

    Every cell on a thing learns what it lies on, weighted by how near the centre is; each thing
    counts the same, whatever its size.
    """
    heats = heat(truth)
    near = heats * (heats > NEAR)
    near = near / near.sum((2, 3), keepdim=True).clamp_min(1e-6)
    owner = heats.argmax(1, keepdim=True)
    weight = near.gather(1, owner)[:, 0]

    def owned(values: Tensor) -> Tensor:
        """[B, G, G] of the thing that each cell lies on, from [B, things of a scene]."""
        return values[..., None, None].expand_as(heats).gather(1, owner)[:, 0]

    def item(logits: Tensor, target: Tensor) -> Tensor:
        mask = weight * (target >= 0)
        entropy = functional.cross_entropy(logits, target.clamp_min(0), reduction="none")
        return (entropy * mask).sum() / mask.sum().clamp_min(1e-6)

    line = torch.arange(GRID, device=weight.device) + 0.5
    offset = torch.stack((GRID * owned(truth.x) - line, GRID * owned(truth.y) - line[:, None]), 1)
    patterned = (truth.ground_colour >= 0).float()
    ground_colour = functional.cross_entropy(
        seen.ground_colour, truth.ground_colour.clamp_min(0), reduction="none"
    )
    thing, total = owned(truth.thing), weight.sum().clamp_min(1e-6)
    parts = {
        "presence": focal(seen.presence, heats.amax(1)) / (truth.thing >= 0).sum().clamp_min(1),
        "thing": item(seen.thing, thing),
        "colour": item(seen.colour, owned(truth.looks)),
        "centre": ((seen.centre - offset).abs().mean(1) * weight).sum() / total,
        "ground": functional.cross_entropy(seen.ground, truth.ground),
        "ground_colour": (ground_colour * patterned).sum() / patterned.sum().clamp_min(1),
    }
    right = ((seen.thing.argmax(1) == thing) * weight).sum() / total
    return {"loss": sum(parts.values()), **parts, "right": right}


def heat(truth: Batch) -> Tensor:
    """[B, things of a scene, G, G]: 1 in the cell of each centre, falling off with the size."""
    cells = torch.arange(GRID, device=truth.x.device) + 0.5
    spread = (GRID * truth.side / 8).clamp_min(0.6)[..., None, None]
    across = cells - ((GRID * truth.x).floor() + 0.5)[..., None]
    down = cells - ((GRID * truth.y).floor() + 0.5)[..., None]
    distance = across[..., None, :].square() + down[..., None].square()
    shown = (truth.thing >= 0)[..., None, None]
    return torch.exp(-distance / (2 * spread.square())) * shown


def focal(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid()
    here = (target > 0.999).float()
    hit = (1 - p).square() * functional.logsigmoid(logits) * here
    miss = (1 - target).pow(4) * p.square() * functional.logsigmoid(-logits) * (1 - here)
    return -(hit + miss).sum()


def degrade(pictures: Tensor) -> Tensor:
    """A third of the batch loses resolution or gains noise, as drawn pictures do."""
    soft = functional.interpolate(
        functional.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear"
    )
    noisy = pictures + 0.08 * torch.randn_like(pictures)
    pick = torch.rand(len(pictures), 1, 1, 1, device=pictures.device)
    return torch.where(pick < 0.15, soft, torch.where(pick < 0.3, noisy, pictures))


def train(
    scenes: Scenes, composer: Composer, settings: Settings, work: Path, seconds: float | None
) -> JudgeNet:
    """Train, resume, or load a trained judge."""
    own, device = settings.judge, composer.device
    torch.manual_seed(own.seed)
    model = JudgeNet(own.widths).to(device, memory_format=torch.channels_last)
    budget = Budget(own.steps, seconds)
    run = Run(
        work / "judge", {"judge": model}, [adamw(model.parameters(), own.lr, 0.05)], budget,
        warmup=min(200, own.steps // 4), decay=0.5, workers=settings.workers,
    )  # fmt: skip

    def draw(step: int) -> Batch:
        rng = random.Random(f"{own.seed}/{step}")
        return Batch.of([scenes.draw(rng) for _ in range(own.batch)])

    def loss_at(batch: Batch) -> dict[str, Tensor]:
        torch.manual_seed(int(batch.noise[0]))
        truth = batch.to(device)
        pictures = degrade(composer.render(truth)).contiguous(memory_format=torch.channels_last)
        return losses(model(pictures), truth)

    run.train(loss_at, draw)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Found:
    """Up to `PEAKS` things in one picture, and its ground: probabilities.

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
