"""Stage ``judge``: training the detector of mini's world on real scenes of a seed of its own."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from asyncdiff_cli.engine.rewards.world.judge import GRID, JudgeNet, Seen
from mini.compose import Composer
from mini.scenes import Batch, Scenes
from mini.settings import Settings
from mini.training import Budget, Run, adamw

NEAR = 0.3  # heat above which a cell learns what it lies on


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
