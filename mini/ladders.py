"""Ladders: a scene as the VAE gives it back, and its caption drawn in fewer and fewer steps.

They show what few steps cost: all that is drawn of one caption begins with the same noise, and is
synchronous.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from asyncdiff_cli.engine import Backbone, FixedDeviation, load_backbone, sample
from asyncdiff_cli.engine.hashes import sha256_of_files
from asyncdiff_cli.engine.rewards.world.grammar import say
from mini.compose import Composer, to_levels
from mini.scenes import Batch, Scenes
from mini.settings import Settings


@dataclass(frozen=True)
class Ladders:
    """Ladders of scenes.

    Attributes:
        mini: an exported pipeline.
        work: where they are kept, in a directory that is named after what they are drawn with.
    """

    scenes: Scenes
    composer: Composer
    mini: Path
    settings: Settings
    work: Path

    @cached_property
    def backbone(self) -> Backbone:
        """What draws, in bf16, in which a CPU draws twice as many as in fp32."""
        device = str(self.composer.device)
        return load_backbone("mini", model_path=self.mini, device=device, dtype="bf16")

    @cached_property
    def vae(self) -> AutoencoderKL:
        """What decodes, in fp32: a rung must not be told by rounding."""
        vae = AutoencoderKL.from_pretrained(self.mini, subfolder="vae", torch_dtype=torch.float32)
        return vae.to(self.composer.device)

    def draw(self, count: int) -> Tensor:
        """Ladders, uint8 [count, 1 + rungs, 3, H, W], in parts so that a killed run goes on."""
        at_once, directory = self.settings.quality.drawn, self.work / f"ladders-{self._digest()}"
        directory.mkdir(parents=True, exist_ok=True)
        parts = []
        for number, first in enumerate(range(0, count, at_once)):
            own = min(at_once, count - first)
            path = directory / f"{number:04}-{own}.safetensors"
            if not path.exists():
                rng = random.Random(f"{self.settings.quality.seed}/ladders/{number}")
                partial = path.with_suffix(".partial")
                save_file({"ladders": self._part(own, rng)}, partial)
                partial.rename(path)
                print(f"ladders: {path.name}", flush=True)
            parts.append(load_file(path)["ladders"])
        return torch.cat(parts)

    def _digest(self) -> str:
        own, files = self.settings.quality, sorted(self.mini.rglob("*.safetensors"))
        weights = sha256_of_files([(p.relative_to(self.mini).as_posix(), p) for p in files])
        shown = repr((weights, self.scenes.things, own.rungs, own.seed, self.settings.sampling))
        return sha256(shown.encode()).hexdigest()[:8]

    @torch.no_grad()
    def _part(self, count: int, rng: random.Random) -> Tensor:
        scenes = [self.scenes.draw(rng) for _ in range(count)]
        captions = [say(self.scenes.facts(scene, rng), rng) for scene in scenes]
        seeds = [rng.getrandbits(32) for _ in scenes]
        pictures = self.composer.render(Batch.of(scenes))
        config, encoded = self.vae.config, self.vae.encode(pictures).latent_dist.mode()
        rungs = [(encoded - config.shift_factor) * config.scaling_factor]
        for steps in self.settings.quality.rungs:
            result = sample(
                self.backbone,
                captions,
                policy=FixedDeviation(0.0),
                num_inference_steps=steps,
                guidance_scale=self.settings.sampling.guidance,
                max_sequence_length=self.settings.transformer.padding,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="latent",
            )
            rungs.append(result.images.float())
        return torch.stack([self._decoded(rung) for rung in rungs], dim=1)

    def _decoded(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        latents = latents / config.scaling_factor + config.shift_factor
        return to_levels(self.vae.decode(latents).sample).cpu()
