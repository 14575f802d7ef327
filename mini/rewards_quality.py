"""The reward ``mini_quality``: the exported net, how well it orders degradations, and its card.

What is measured is the exported directory, read as the package reads it, on things, scenes and
noises that took no part in training.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from asyncdiff_cli.engine import Backbone, sample
from asyncdiff_cli.engine.rewards.mini_quality import MiniQuality, QualityNet
from mini.clip import pool
from mini.data import Composer, with_article
from mini.evaluate import EVALUATION_SEED, summary
from mini.export import NOTICES
from mini.quality import LATENT, decode_at, degrade, split, to_levels
from mini.settings import ART_PACKAGE, COLOURS, LABEL_PACKAGE, Settings
from mini.vae import to_tensor

TEMPLATE = Path(__file__).with_suffix(".md")
LEVELS = 8  # severities of each picture, evenly from none to the strongest
JPEG_QUALITY = 10  # of the strongest compression; the weakest is 95
EARLY = 0.6  # the largest σ at which a trajectory of mini is cut off

TITLES = {
    "noise": "Gaussian noise, σ up to {noise:g} of 255",
    "blur": "Gaussian blur, σ up to {blur:g} pixels",
    "ringing": "ideal low-pass, up to {ringing:.0%} of the band",
    "latent": "noise in the VAE's latent, t up to {latent:g}",
    "jpeg": "JPEG, quality 95 to 10: **not trained on**",
    "mini_noise": "Gaussian noise on mini's pictures",
    "mini_blur": "Gaussian blur on mini's pictures",
    "mini_early": "mini's trajectories cut off early, from σ = 0.6: **not trained on**",
}


@dataclass(frozen=True)
class Ladder:
    """Pictures at several severities: scores and severities [pictures, levels]."""

    scores: np.ndarray
    severities: np.ndarray

    def within(self) -> dict:
        """Mean over the pictures of Spearman's ρ between severity and −score."""
        pairs = zip(self.severities, self.scores, strict=True)
        return summary([spearman(severity, -score) for severity, score in pairs])

    def across(self) -> dict:
        """Spearman's ρ over the pictures, each at one severity; all are shown equally often."""
        rng = np.random.default_rng(EVALUATION_SEED)
        count, levels = self.scores.shape
        chosen = np.arange(count), rng.permutation(np.arange(count) % levels)
        severities, scores = self.severities[chosen], self.scores[chosen]
        picks = rng.integers(count, size=(2000, count))
        values = [spearman(severities[pick], -scores[pick]) for pick in picks]
        low, high = np.nanpercentile(values, (2.5, 97.5))
        mean = spearman(severities, -scores)
        return {"mean": mean, "interval": [float(low), float(high)], "n": count}


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's ρ, with average ranks for ties; NaN where one of them is constant."""
    first, second = (_ranks(values) for values in (one, other))
    first, second = first - first.mean(), second - second.mean()
    length = np.sqrt(np.square(first).sum() * np.square(second).sum())
    return float((first * second).sum() / length) if length > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def export(model: QualityNet, settings: Settings, target: Path) -> None:
    """Write the weights in fp32, and what rebuilds the net."""
    target.mkdir(parents=True, exist_ok=True)
    own = settings.quality
    config = {"widths": list(own.widths), "hidden": own.hidden}
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    weights = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    save_file(weights, target / "model.safetensors")
    for notice in NOTICES.glob("LICENSE-*"):
        (target / notice.name).write_bytes(notice.read_bytes())


@torch.no_grad()
def measure(
    reward: MiniQuality, backbone: Backbone, composer: Composer, settings: Settings
) -> dict[str, dict]:
    """Per kind of degradation ``within`` and ``across``; and the mean score of clean pictures."""
    own = settings.quality
    held_out = split(composer.concepts, own.held_out)[1]
    unseen = Composer(tuple(held_out), composer.scenes)
    scenes = pool(unseen, EVALUATION_SEED, own.measured)
    art = to_tensor([scene.picture for scene in scenes])
    ladders = {
        kind: _degraded(reward, art, kind, most)
        for kind, most in own.severities.items()
        if kind != LATENT
    }
    ladders[LATENT] = _latent(reward, backbone.pipe.vae, art, own.severities[LATENT])
    ladders["jpeg"] = _jpeg(reward, art)
    clean = {"clean": summary(ladders["noise"].scores[:, 0].tolist())}
    clean["clean_decoded"] = summary(ladders[LATENT].scores[:, 0].tolist())

    drawn, early = trajectories(reward, backbone, held_out, own.drawn)
    for kind in ("noise", "blur"):
        ladders[f"mini_{kind}"] = _degraded(reward, drawn, kind, own.severities[kind])
    ladders["mini_early"] = early
    clean["clean_mini"] = summary(early.scores[:, -1].tolist())
    rows = {
        name: {"within": each.within(), "across": each.across()} for name, each in ladders.items()
    }
    return {"kinds": rows, "scores": clean}


def score(reward: MiniQuality, pictures: Tensor) -> np.ndarray:
    """[...] of pictures [..., 3, H, W] in [-1, 1], through 8-bit images."""
    levels = to_levels(pictures.flatten(0, -4)).permute(0, 2, 3, 1).numpy()
    scores = reward.score([Image.fromarray(picture) for picture in levels])
    return scores.view(pictures.shape[:-3]).double().numpy()


def _degraded(reward: MiniQuality, art: Tensor, kind: str, most: float) -> Ladder:
    rng = np.random.default_rng(EVALUATION_SEED)
    severities = np.linspace(0, most, LEVELS)
    scores = [
        score(reward, torch.stack([degrade(kind, picture, s, rng) for s in severities]))
        for picture in art
    ]
    return Ladder(np.stack(scores), np.tile(severities, (len(art), 1)))


def _latent(reward: MiniQuality, vae: AutoencoderKL, art: Tensor, most: float) -> Ladder:
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    times = torch.linspace(0, most, LEVELS).expand(len(art), -1)
    parts = zip(art.split(16), times.split(16), strict=True)
    scores = [score(reward, decode_at(vae, *part, generator)) for part in parts]
    return Ladder(np.concatenate(scores), times.double().numpy())


def _jpeg(reward: MiniQuality, art: Tensor) -> Ladder:
    """Level 0 is not compressed."""
    qualities = np.linspace(95, JPEG_QUALITY, LEVELS - 1).round().astype(int)
    severities = np.array([0, *(100 - qualities)], float)
    rows = []
    for picture in to_levels(art).permute(0, 2, 3, 1).numpy():
        image = Image.fromarray(picture)
        images = [image, *(_compressed(image, int(quality)) for quality in qualities)]
        rows.append(reward.score(images).double().numpy())
    return Ladder(np.stack(rows), np.tile(severities, (len(rows), 1)))


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def trajectories(
    reward: MiniQuality, backbone: Backbone, concepts: Sequence, count: int
) -> tuple[Tensor, Ladder]:
    """mini's finished pictures [count, 3, H, W], and the ladder of those cut off before the end.

    A trajectory that is cut off at σ is decoded with that noise in its latent.
    """
    palette, finished, scores = list(COLOURS), [], []
    sigmas: list[float] = []
    for number in range(count):
        concept, colour = concepts[number % len(concepts)], palette[number % len(palette)]
        prompt = f"{with_article(concept.name)} on {with_article(colour)} background"
        states: list[tuple[float, Tensor]] = []
        generator = torch.Generator().manual_seed(EVALUATION_SEED + number)
        result = sample(
            backbone,
            prompt,
            generator=generator,
            output_type="pt",
            on_step=lambda state, kept=states: kept.append((float(state.sigma), state.latents)),
        )
        late = [latents for sigma, latents in states if sigma <= EARLY]
        sigmas = [*(sigma for sigma, _ in states if sigma <= EARLY), 0.0]
        early = [
            backbone.adapter.decode(latents, *result.images.shape[-2:], "pt") for latents in late
        ]
        pictures = 2 * torch.cat([*early, result.images]).float().cpu() - 1
        finished.append(pictures[-1])
        scores.append(score(reward, pictures))
    return torch.stack(finished), Ladder(np.stack(scores), np.tile(sigmas, (count, 1)))


def write_card(metrics: dict, settings: Settings, target: Path) -> None:
    """Write ``metrics.json`` and ``README.md`` beside the weights that were measured."""
    (target / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    own = asdict(settings.quality)
    text = TEMPLATE.read_text().format(
        kilobytes=(target / "model.safetensors").stat().st_size / 1e3,
        parameters=sum(p.numel() for p in MiniQuality.from_directory(target).model.parameters()),
        size=settings.scenes.size,
        art=ART_PACKAGE,
        labels=LABEL_PACKAGE,
        batch=2 * own["groups"] * own["bases"],
        rungs=LEVELS,
        rows="\n".join(
            _row(title.format(**own["severities"]), metrics["kinds"][kind])
            for kind, title in TITLES.items()
        ),
        **{name: _interval(values, 2) for name, values in metrics["scores"].items()},
        **own,
    )
    (target / "README.md").write_text(text)


def _row(title: str, measures: dict[str, dict]) -> str:
    within, across = measures["within"], measures["across"]
    return f"| {title} | {_interval(within)} | {_interval(across)} | {across['n']} |"


def _interval(measure: dict, digits: int = 3) -> str:
    low, high = measure["interval"]
    return f"{measure['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def make(
    model: QualityNet, backbone: Backbone, composer: Composer, settings: Settings, target: Path
) -> None:
    """Export, measure what was exported, and write it down."""
    export(model, settings, target)
    write_card(
        measure(MiniQuality.from_directory(target), backbone, composer, settings), settings, target
    )
