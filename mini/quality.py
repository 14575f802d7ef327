"""Stage ``reward_quality``: a small net that orders pictures by how strongly they were degraded.

One of the degradations is what a sampler with few steps does to a picture. The loss is RankNet's
(Burges et al., 2005) on pairs that suffered the same kind of degradation, of one picture or of two.
A tenth of the things is kept from training.
"""

from __future__ import annotations

import hashlib
import io
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn import functional

from asyncdiff_cli.engine.rewards.mini_quality import QualityNet
from mini.compose import Composer, to_images
from mini.ladders import Ladders
from mini.scenes import Batch, Scenes
from mini.settings import Settings
from mini.training import Budget, Run, adamw

MARGIN = 8  # pixels by which a picture's border is repeated outward before it is filtered
HELD_OUT = 0.1  # share of the things that are kept from training
UNTOUCHED = 0.25  # share of the showings that are not degraded


def noise(pictures: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """White Gaussian noise with standard deviations ``sigma`` [N] of 255 levels."""
    white = torch.randn(pictures.shape, generator=generator, device=pictures.device)
    return pictures + white * sigma.view(-1, 1, 1, 1) / 127.5


def blur(pictures: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian of ``sigma`` [N] pixels; the border repeats outward."""
    padded = functional.pad(pictures, (MARGIN,) * 4, mode="replicate")
    gain = torch.exp(-2 * (torch.pi * _frequencies(padded) * sigma.view(-1, 1, 1, 1)).square())
    return _filtered(padded, gain)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def ringing(pictures: Tensor, removed: Tensor, generator: torch.Generator) -> Tensor:
    """An ideal low-pass: the share ``removed`` [N] of the frequencies to Nyquist's is cut away."""
    cut = torch.where(removed > 0, 0.5 * (1 - removed), 1.0).view(-1, 1, 1, 1)
    return _filtered(pictures, _frequencies(pictures) <= cut)


def _frequencies(pictures: Tensor) -> Tensor:
    """[h, w // 2 + 1], cycles per pixel."""
    height, width = pictures.shape[-2:]
    down = torch.fft.fftfreq(height, device=pictures.device)
    return torch.hypot(down[:, None], torch.fft.rfftfreq(width, device=pictures.device)[None])


def _filtered(pictures: Tensor, gain: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(pictures) * gain, s=pictures.shape[-2:])


@dataclass(frozen=True)
class Degrader:
    """Degrades pictures [N, 3, H, W] in [-1, 1]; one kind is noise left in ``vae``'s latents."""

    vae: AutoencoderKL

    def __call__(
        self, kind: str, pictures: Tensor, severity: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Rounded to the 256 levels that a stored picture has."""
        own = {"noise": noise, "blur": blur, "ringing": ringing, "latent": self.latent}[kind]
        return ((own(pictures, severity, generator).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1

    @torch.no_grad()
    def latent(self, pictures: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
        """Decoded from (1 - t) x + t ε, with x in mini's units."""
        shift, scale = self.vae.config.shift_factor, self.vae.config.scaling_factor
        latents = (self.vae.encode(pictures).latent_dist.mode().float() - shift) * scale
        epsilon = torch.randn(latents.shape, generator=generator, device=latents.device)
        mixed = torch.lerp(latents, epsilon, t.view(-1, 1, 1, 1))
        return self.vae.decode(mixed / scale + shift).sample.float()


def split(things: Sequence[str]) -> tuple[list[str], list[str]]:
    """Things to train on, and things to measure on: by hash, and at least two, which make pairs."""
    ordered = sorted(things, key=lambda name: hashlib.sha256(f"quality|{name}".encode()).digest())
    count = max(2, round(HELD_OUT * len(things)))
    return ordered[count:], ordered[:count]


def rank_loss(scores: Tensor, severities: Tensor) -> dict[str, Tensor]:
    """RankNet over all ordered pairs within a group, [groups, members] each."""
    worse = severities[:, :, None] < severities[:, None, :]  # [g, i, j]: i is better than j
    margins = (scores[:, :, None] - scores[:, None, :])[worse]
    right = (margins.detach() > 0).float().mean()
    return {"loss": functional.softplus(-margins).mean(), "right": right}


@dataclass(frozen=True)
class Groups:
    """Groups of pictures, all of a group with one kind of degradation and one kind of base.

    Each scene is shown twice; half of the groups show it as the VAE gives it back.

    Attributes:
        ladders: what `Ladders.draw` gives. Their upper ends are what the VAE gives back; a group of
            their own shows each on two rungs.
    """

    composer: Composer
    degrader: Degrader
    ladders: Tensor
    settings: Settings

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pictures [groups, members, 3, H, W]; severities [groups, members], shares of the most."""
        own, device = self.settings.quality, self.composer.device
        generator = torch.Generator(device).manual_seed(int(batch.noise[0]))
        picked = torch.Generator().manual_seed(int(batch.noise[0]))  # ladders lie on the CPU
        pictures = self.composer.render(batch).unflatten(0, (own.groups, own.bases))
        shape = own.groups, 2 * own.bases
        severities = torch.rand(shape, generator=generator, device=device)
        severities *= torch.rand(shape, generator=generator, device=device) >= UNTOUCHED
        shown = []
        for number, (bases, share) in enumerate(zip(pictures, severities, strict=True)):
            kind = list(own.severities)[number % len(own.severities)]
            if (number // len(own.severities)) % 2 and kind != "latent":
                chosen = torch.randint(len(self.ladders), (own.bases,), generator=picked)
                bases = self._shown(self.ladders[chosen, 0])
            most = own.severities[kind]
            shown.append(self.degrader(kind, bases.repeat(2, 1, 1, 1), most * share, generator))
        rungs, heights = self._rungs(picked)
        return torch.cat([torch.stack(shown), rungs]), torch.cat([severities, heights])

    def _shown(self, pictures: Tensor) -> Tensor:
        return pictures.to(self.composer.device).float() / 127.5 - 1

    def _rungs(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Groups of pictures from ladders, mirrored or not, and how far down each is, of 1."""
        own, device = self.settings.quality, self.composer.device
        count, last = own.ladder_groups * own.bases, self.ladders.shape[1] - 1
        chosen = torch.randint(len(self.ladders), (count,), generator=generator)
        height = torch.rand(count, last + 1, generator=generator).argsort(1)[:, :2]
        pictures = self._shown(self.ladders[chosen[:, None], height])
        mirrored = torch.rand(count, 1, 1, 1, 1, generator=generator).to(device) < 0.5
        pictures = torch.where(mirrored, pictures.flip(-1), pictures)
        shape = own.ladder_groups, 2 * own.bases
        return pictures.flatten(0, 1).unflatten(0, shape), (height / last).to(device).view(shape)


def train(
    scenes: Scenes,
    composer: Composer,
    mini: Callable[[], Path],
    settings: Settings,
    work: Path,
    seconds: float | None,
) -> QualityNet:
    """Train, resume, or load; the score is in units of the training degradations.

    Args:
        mini: asked where an exported pipeline is, if there is something to train.
        seconds: include drawing the ladders.
    """
    own = settings.quality
    torch.manual_seed(own.seed)
    model = QualityNet(own.widths, own.hidden)
    model.to(composer.device, memory_format=torch.channels_last)
    run = Run(
        work / "reward_quality", {"model": model}, [adamw(model.parameters(), own.lr)],
        Budget(own.steps, seconds), decay=0.5, workers=settings.workers,
    )  # fmt: skip
    if not run.done:
        _fit(run, model, scenes, composer, mini(), settings, work)
    return model.eval().requires_grad_(False)


def _fit(
    run: Run,
    model: QualityNet,
    scenes: Scenes,
    composer: Composer,
    mini: Path,
    settings: Settings,
    work: Path,
) -> None:
    own, begun = settings.quality, time.monotonic()
    seen = Scenes(scenes.drawings, split(scenes.things)[0])
    ladders = Ladders(seen, composer, mini, settings, work)
    drawn = ladders.draw(own.ladders)
    if seconds := run.budget.seconds:
        run.budget = Budget(own.steps, max(1.0, seconds - (time.monotonic() - begun)))
    decoder = ladders.vae.to(memory_format=torch.channels_last)
    groups = Groups(composer, Degrader(decoder), drawn, settings)

    def draw(step: int) -> Batch:
        rng = random.Random(f"{own.seed}/{step}")
        return Batch.of([seen.draw(rng) for _ in range(own.groups * own.bases)])

    def loss_at(batch: Batch) -> dict[str, Tensor]:
        pictures, severities = groups(batch)
        pictures = pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return rank_loss(model.raw(pictures).view(severities.shape), severities)

    run.train(loss_at, draw)
    model.eval()
    calibrate(model, groups, [draw(-1 - index) for index in range(4)])
    run.save()


@torch.no_grad()
def calibrate(model: QualityNet, groups: Groups, batches: Sequence[Batch]) -> None:
    """Clean scenes get mean 0, and degraded ones a standard deviation of 1."""
    model.shift.zero_()
    model.scale.fill_(1)
    clean = torch.cat([model(groups.composer.render(batch)) for batch in batches])
    degraded = torch.cat([model(groups(batch)[0].flatten(0, 1)) for batch in batches])
    model.shift.copy_(clean.mean())
    model.scale.copy_(1 / degraded.std())


def compressed(pictures: Tensor, quality: int) -> Tensor:
    """Pictures [N, 3, H, W] through JPEG, which the net is not trained on."""
    rows = []
    for image in to_images(pictures):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        rows.append(np.array(Image.open(buffer).convert("RGB")))
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 127.5 - 1
