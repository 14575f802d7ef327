"""Every setting of the embedded backbone, in one place.

``Settings()`` is for one GPU and a budget in minutes. ``Settings.cpu()`` has the same networks and
fewer, smaller steps; ``Settings.smoke()`` runs every stage for a few and is what the tests use.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from asyncdiff_cli.engine.backbones.registry import REGISTRY

SIZE = 128
"""Pixels on a side of every picture."""


@dataclass(frozen=True)
class Judge:
    """The detector that knows the truth; its seed and scenes are its own."""

    widths: tuple[int, ...] = (32, 64, 128, 192)  # at a half, a quarter, … of the resolution
    batch: int = 256
    steps: int = 4_000
    lr: float = 2e-3
    fitted: int = 4_096  # scenes that its probabilities are fitted on
    seed: int = 1021


@dataclass(frozen=True)
class Vae:
    channels: tuple[int, ...] = (32, 64, 128, 128)
    latent_channels: int = 16
    crop: int = 128
    batch: int = 64
    steps: int = 6_000
    lr: float = 1.5e-3
    kl: float = 3e-4
    perceptual: float = 0.3
    spectral: float = 0.02
    seed: int = 11


@dataclass(frozen=True)
class Text:
    """The two text towers of the pipeline, trained together with the transformer."""

    vocabulary: int = 1200
    tokens: int = 24
    width: int = 128
    layers: int = 3
    projection: int = 128


@dataclass(frozen=True)
class Transformer:
    layers: int = 8
    heads: int = 8
    head_dim: int = 32
    patch: int = 2
    cache: int = 131_072  # scenes whose latents are computed once
    batch: int = 256
    steps: int = 12_000
    warmup: int = 100
    decay: float = 0.4
    muon_lr: float = 0.02
    adamw_lr: float = 1e-3
    text_lr: float = 1e-3
    shift: float = 2.0
    text_dropout: float = 0.1
    ema: float = 0.999
    padding: int = 8  # zero tokens in the place of T5's
    long_every: int = 32  # one step in so many pads with 256, the stock pipeline's default
    alignment: float = 0.5  # weight of the agreement with the judge's features (REPA)
    alignment_layer: int = 4
    alignment_until: float = 0.6  # share of the training after which it stops
    seed: int = 31


@dataclass(frozen=True)
class Clip:
    """The reward ``mini_clip``: one text tower and one vision tower, with hard negatives."""

    vision_width: int = 192
    vision_layers: int = 4
    patch: int = 16
    batch: int = 256
    negatives: int = 3  # wrong captions of each scene
    steps: int = 3_000
    lr: float = 1e-3
    seed: int = 2021


@dataclass(frozen=True)
class Quality:
    """The reward that reads no prompt; ``severities`` are the strongest that it sees, by kind."""

    widths: tuple[int, ...] = (32, 64, 96)
    hidden: int = 64
    severities: dict[str, float] = field(
        default_factory=lambda: {
            "noise": 25.0,  # standard deviation, of 255
            "blur": 2.5,  # standard deviation, pixels
            "ringing": 0.85,  # share of the frequencies up to Nyquist's that is cut away
            "latent": 0.6,  # t of the noise left in mini's latent, of 1
        }
    )
    rungs: tuple[int, ...] = (28, 16, 8, 5)  # steps that a scene's caption is drawn in
    ladders: int = 2_048  # scenes with all rungs
    drawn: int = 256  # of them at once
    groups: int = 8  # of a batch: pictures that suffer the same
    ladder_groups: int = 8  # the same, of pictures from ladders
    bases: int = 8  # scenes in a group, each shown twice
    steps: int = 1_500
    lr: float = 2e-3
    seed: int = 3021
    measured: int = 200  # held-out scenes that the ordering is measured on


@dataclass(frozen=True)
class Evaluation:
    """How many prompts of each category, and what is drawn with which numbers of steps."""

    questions: int = 256
    pictures: int = 2_048  # for the Fréchet distance and the spectrum
    steps: tuple[int, ...] = (5, 8, 10, 15, 28, 50)
    guidances: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0, 5.0)
    guided: int = 512  # pictures, of prompts apart, that guidance is compared on
    deviations: tuple[float, ...] = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)
    deviated: tuple[int, ...] = (5, 8, 10, 15)
    figure_steps: tuple[int, ...] = (5, 8, 10, 15, 28)
    batch: int = 256
    seed: int = 90_001


@dataclass(frozen=True)
class Sampling:
    """What the exported pipeline is configured with, and measured at: mini's own defaults."""

    shift: float = 3.0
    steps: int = REGISTRY["mini"].num_inference_steps
    guidance: float = REGISTRY["mini"].guidance_scale


@dataclass(frozen=True)
class Settings:
    judge: Judge = field(default_factory=Judge)
    vae: Vae = field(default_factory=Vae)
    text: Text = field(default_factory=Text)
    transformer: Transformer = field(default_factory=Transformer)
    clip: Clip = field(default_factory=Clip)
    quality: Quality = field(default_factory=Quality)
    evaluation: Evaluation = field(default_factory=Evaluation)
    sampling: Sampling = field(default_factory=Sampling)
    workers: int = 10
    shares: dict[str, float] = field(
        default_factory=lambda: {
            "judge": 0.12,
            "vae": 0.20,
            "transformer": 0.42,
            "reward_clip": 0.07,
            "reward_quality": 0.05,
        }
    )
    """Shares of the minutes of ``--minutes``; the rest is for caches, export and evaluation."""

    @classmethod
    def gpu(cls) -> Settings:
        return cls()

    @classmethod
    def cpu(cls) -> Settings:
        base = cls()
        return cls(
            judge=replace(base.judge, batch=32, steps=10_000),
            vae=replace(base.vae, crop=64, batch=16, steps=6_000, lr=1e-3),
            transformer=replace(base.transformer, cache=49_152, batch=32, steps=30_000, ema=0.998),
            clip=replace(base.clip, batch=96, steps=1_500),
            quality=replace(
                base.quality, ladders=1_024, drawn=32, ladder_groups=4, bases=4, steps=700
            ),
            evaluation=replace(base.evaluation, questions=100, pictures=512, guided=128, batch=32),
            workers=0,
        )

    def scaled(self, share: float) -> Settings:
        """``share`` of every stage's steps, of the cache and of the questions, for a rehearsal."""

        def less(part: Any, *names: str) -> Any:
            numbers = {name: max(2, round(share * getattr(part, name))) for name in names}
            return replace(part, **numbers)

        return replace(
            self,
            judge=less(self.judge, "steps"),
            vae=less(self.vae, "steps"),
            transformer=less(self.transformer, "steps", "cache"),
            clip=less(self.clip, "steps"),
            quality=less(self.quality, "steps", "measured", "ladders"),
            evaluation=less(self.evaluation, "questions", "pictures", "guided"),
        )

    @classmethod
    def smoke(cls) -> Settings:
        """Narrow networks and two steps of everything."""
        return cls(
            judge=Judge(widths=(8, 8, 16, 16), batch=4, steps=2, fitted=8),
            vae=Vae(channels=(8, 8, 16, 16), crop=64, batch=2, steps=2),
            text=Text(vocabulary=700, width=32, layers=1, projection=16),
            transformer=Transformer(
                layers=2, heads=2, head_dim=16, cache=8, batch=4, steps=2, warmup=1,
                long_every=2, alignment_layer=1,
            ),
            clip=Clip(vision_width=32, vision_layers=1, batch=4, steps=2),
            quality=Quality(
                widths=(8, 8), hidden=8, rungs=(2, 1), ladders=4, drawn=4, groups=4,
                ladder_groups=2, bases=2, steps=2, measured=4,
            ),
            evaluation=Evaluation(
                questions=2, pictures=4, steps=(1, 2), deviations=(0.0, 0.5), deviated=(2,),
                guidances=(1.5, 3.0), guided=2,
                figure_steps=(1, 2), batch=4,
            ),
            sampling=Sampling(steps=2),
            workers=0,
        )  # fmt: skip
