"""Stage ``reward_quality``: a small net that orders pictures by how strongly they were degraded.

The loss is RankNet's (Burges et al., 2005) on pairs that suffered the same kind of degradation, of
one picture or of two. A tenth of the things is kept from training.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from asyncdiff_cli.engine.rewards.mini_quality import QualityNet
from mini.clip import pool
from mini.data import Composer, Concept
from mini.settings import Settings
from mini.training import Run, pick_device
from mini.vae import to_tensor

LATENT = "latent"


def noise(picture: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """White Gaussian noise with a standard deviation of ``sigma`` of 255 levels."""
    return picture + torch.from_numpy(rng.normal(0, sigma / 127.5, picture.shape)).float()


def blur(picture: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """A Gaussian of ``sigma`` pixels, cut off at three of them; the border repeats outward."""
    radius = max(1, int(np.ceil(3 * sigma)))
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).expand(len(picture), 1, 1, -1)
    padded = functional.pad(picture[None], (radius,) * 4, mode="replicate")
    across = functional.conv2d(padded, weights, groups=len(picture))
    return functional.conv2d(across, weights.mT, groups=len(picture))[0]


def ringing(picture: Tensor, removed: float, rng: np.random.Generator) -> Tensor:
    """An ideal low-pass: the share ``removed`` of the frequencies up to Nyquist's is cut away."""
    height, width = picture.shape[-2:]
    across, down = torch.fft.rfftfreq(width), torch.fft.fftfreq(height)
    kept = torch.hypot(down[:, None], across) <= 0.5 * (1 - removed)
    return torch.fft.irfft2(torch.fft.rfft2(picture) * kept, s=(height, width))


DEGRADATIONS: dict[str, Callable[[Tensor, float, np.random.Generator], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "ringing": ringing,
}
"""Of a picture [3, H, W] in [-1, 1], by a severity above 0."""


def degrade(kind: str, picture: Tensor, severity: float, rng: np.random.Generator) -> Tensor:
    """As `DEGRADATIONS`, rounded to the 256 levels that a stored picture has."""
    worse = DEGRADATIONS[kind](picture, severity, rng) if severity > 0 else picture
    return quantise(worse)


def quantise(pictures: Tensor) -> Tensor:
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def split(concepts: tuple[Concept, ...], share: float) -> tuple[list[Concept], list[Concept]]:
    """Things to train on, and things to measure on: by hash, and at least two, which make pairs."""
    ordered = sorted(concepts, key=lambda c: hashlib.sha256(f"quality|{c.name}".encode()).digest())
    count = max(2, round(share * len(concepts)))
    return ordered[count:], ordered[:count]


@dataclass
class Bank:
    """Pictures to degrade, and their passages through mini's VAE with noise left in the latent."""

    art: Tensor  # uint8 [N, 3, H, W]
    decoded: Tensor  # uint8 [N, levels, 3, H, W]; level 0 has no noise
    times: Tensor  # [N, levels]: the latent was (1 - t) x + t ε

    def base(self, index: int, decoded: bool) -> Tensor:
        """[3, H, W] in [-1, 1]: the picture as it was drawn, or as the VAE gives it back."""
        return from_levels(self.decoded[index, 0] if decoded else self.art[index])


def from_levels(picture: Tensor) -> Tensor:
    return picture.float() / 127.5 - 1


def to_levels(pictures: Tensor) -> Tensor:
    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte()


def fill_bank(
    composer: Composer, vae: AutoencoderKL, settings: Settings, count: int, seed: int, path: Path
) -> Bank:
    """``count`` scenes at random times, kept in the file ``path`` so that a later run goes on."""
    if not path.exists():
        parts = [
            _part(composer, vae, settings, min(32, count - start), seed + start)
            for start in range(0, count, 32)
        ]
        columns = [torch.cat(column).contiguous() for column in zip(*parts, strict=True)]
        tensors = dict(zip(("art", "decoded", "times"), columns, strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(tensors, partial)
        partial.rename(path)
    return Bank(**load_file(path))


@torch.no_grad()
def _part(
    composer: Composer, vae: AutoencoderKL, settings: Settings, count: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    own, generator = settings.quality, torch.Generator().manual_seed(seed)
    art = to_tensor([scene.picture for scene in pool(composer, seed, count)])
    times = own.severities[LATENT] * torch.rand(count, own.levels, generator=generator)
    times[:, 0] = 0
    decoded = decode_at(vae, art, times, generator)
    return to_levels(art), to_levels(decoded), times


@torch.no_grad()
def decode_at(
    vae: AutoencoderKL, pictures: Tensor, times: Tensor, generator: torch.Generator
) -> Tensor:
    """[N, levels, 3, H, W]: decoded from (1 - t) x + t ε, with x in mini's units and own ε."""
    device, config = next(vae.parameters()).device, vae.config
    posterior = vae.encode(pictures.to(device)).latent_dist
    latents = (posterior.mode() - config.shift_factor) * config.scaling_factor
    columns = []
    for t in times.T:
        epsilon = torch.randn(latents.shape, generator=generator).to(device)
        mixed = torch.lerp(latents, epsilon, t.view(-1, 1, 1, 1).to(device))
        columns.append(vae.decode(mixed / config.scaling_factor + config.shift_factor).sample)
    return torch.stack(columns, dim=1).cpu()


def draw_batch(bank: Bank, settings: Settings, step: int) -> tuple[Tensor, Tensor]:
    """Pictures [groups, members, 3, H, W] and severities [groups, members], as shares of the most.

    A group has one kind of degradation and one kind of base (drawn or decoded), and shows each of
    its pictures twice; one showing in four is not degraded at all.
    """
    own, rng = settings.quality, np.random.default_rng((settings.quality.seed, step + 1))
    kinds = list(own.severities)
    groups = [
        _draw_group(bank, settings, kinds[number % len(kinds)], rng) for number in range(own.groups)
    ]
    pictures, severities = zip(*groups, strict=True)
    return torch.stack(pictures), torch.stack(severities)


def _draw_group(
    bank: Bank, settings: Settings, kind: str, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    own, pictures, severities = settings.quality, [], []
    decoded = bool(rng.random() < 0.5)
    for index in rng.choice(len(bank.art), own.bases, replace=False):
        if kind == LATENT:
            for level in rng.choice(own.levels, 2, replace=False):
                pictures.append(from_levels(bank.decoded[index, level]))
                severities.append(bank.times[index, level].item())
            continue
        for _ in range(2):
            severity = own.severities[kind] * rng.random() * (rng.random() >= 0.25)
            pictures.append(degrade(kind, bank.base(index, decoded), severity, rng))
            severities.append(severity)
    return torch.stack(pictures), torch.tensor(severities) / own.severities[kind]


def rank_loss(scores: Tensor, severities: Tensor) -> dict[str, Tensor]:
    """RankNet over all ordered pairs within a group, [groups, members] each."""
    worse = severities[:, :, None] < severities[:, None, :]  # [g, i, j]: i is better than j
    margins = (scores[:, :, None] - scores[:, None, :])[worse]
    right = (margins.detach() > 0).float().mean()
    return {"loss": functional.softplus(-margins).mean(), "right": right}


def train(composer: Composer, vae: AutoencoderKL, settings: Settings, work: Path) -> QualityNet:
    """Train, or resume, or load; the score is in units of the training degradations."""
    own, device, directory = settings.quality, pick_device(), work / "reward_quality"
    seen = Composer(tuple(split(composer.concepts, own.held_out)[0]), composer.scenes)
    bank = fill_bank(seen, vae, settings, own.pool, own.seed, directory / "bank.safetensors")
    torch.manual_seed(own.seed)
    model = QualityNet(own.widths, own.hidden).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=own.lr, weight_decay=0.01)
    run = Run(directory, {"model": model}, [optimizer], own.steps, decay=0.5)

    def loss_at(step: int) -> dict[str, Tensor]:
        pictures, severities = draw_batch(bank, settings, step)
        scores = model.raw(pictures.flatten(0, 1).to(device))
        return rank_loss(scores.view(severities.shape), severities.to(device))

    run.train(loss_at)
    calibrate(model.eval().requires_grad_(False), bank, settings)
    return model


@torch.no_grad()
def calibrate(model: QualityNet, bank: Bank, settings: Settings) -> None:
    """Clean training scenes get mean 0, and degraded ones a standard deviation of 1."""
    device, own = next(model.parameters()).device, settings.quality
    clean = torch.cat([model(from_levels(part).to(device)) for part in bank.art[:256].split(32)])
    batches = [draw_batch(bank, settings, own.steps + index)[0] for index in range(8)]
    degraded = torch.cat([model(batch.flatten(0, 1).to(device)) for batch in batches])
    model.shift.copy_(clean.mean())
    model.scale.copy_(1 / degraded.std())
