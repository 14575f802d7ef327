"""Stage ``transformer``: the SD3 transformer and its text towers, by rectified flow on latents.

The latents of a fixed set of scenes are computed once; captions of them are worded anew at every
use. Until late in the training a middle layer is aligned to the judge's features (REPA, Yu et al.,
2024), which the same scenes have beside their latents.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch._dynamo as dynamo
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from asyncdiff_cli.engine.rewards.world.grammar import say
from asyncdiff_cli.engine.rewards.world.judge import JudgeNet
from mini.compose import Composer
from mini.muon import Muon
from mini.scenes import Batch, Scene, Scenes
from mini.settings import SIZE, Settings
from mini.text import Towers, load_tokenizer, tokens
from mini.training import Budget, Run, adamw, stream

PART = 4096  # scenes in a file of latents
ENCODED = 128  # scenes encoded at once
ALIGNED = 64  # channels that the judge's features are projected to, at random


def build(settings: Settings) -> SD3Transformer2DModel:
    own, text = settings.transformer, settings.text
    width = own.heads * own.head_dim
    latent_size = SIZE // 2 ** (len(settings.vae.channels) - 1)
    return SD3Transformer2DModel(
        sample_size=latent_size,
        patch_size=own.patch,
        in_channels=settings.vae.latent_channels,
        out_channels=settings.vae.latent_channels,
        num_layers=own.layers,
        attention_head_dim=own.head_dim,
        num_attention_heads=own.heads,
        caption_projection_dim=width,
        joint_attention_dim=2 * text.width,
        pooled_projection_dim=2 * text.projection,
        pos_embed_max_size=latent_size // own.patch,
        qk_norm="rms_norm",
    )


@dataclass
class Cache:
    """Latents [N, C, h, w] and projected features [N, ALIGNED, 8, 8] of scenes, fp16."""

    latents: Tensor
    features: Tensor

    @cached_property
    def shift(self) -> float:
        return float(self.latents[:1024].float().mean())

    @cached_property
    def scale(self) -> float:
        return float(1 / self.latents[:1024].float().std())

    def normalised(self, index: Tensor) -> Tensor:
        """Zero mean and unit variance, as the VAE's shift and scaling factor make them."""
        return (self.latents[index].float() - self.shift) * self.scale


def scene_of(scenes: Scenes, seed: int, index: int) -> Scene:
    """The ``index``-th cached scene."""
    return scenes.draw(random.Random(f"{seed}/{index}"))


@torch.no_grad()
def fill_cache(
    scenes: Scenes,
    composer: Composer,
    judge: JudgeNet,
    vae: AutoencoderKL,
    settings: Settings,
    work: Path,
) -> Cache:
    """Draw and encode the scenes in parts, so that an interrupted run goes on.

    The directory is named after the weights and the first scenes: a VAE that was trained further,
    or another world, has its own.
    """
    own, device = settings.transformer, composer.device
    weights = torch.cat([vae.encoder.conv_out.weight.flatten(), judge.lateral.weight.flatten()])
    digest = hashlib.sha256(weights.cpu().numpy().tobytes())
    digest.update(repr([scene_of(scenes, own.seed, index) for index in range(16)]).encode())
    directory = work / f"latents-{digest.hexdigest()[:8]}-{own.cache}"
    directory.mkdir(parents=True, exist_ok=True)
    projection = aligned_projection(settings, device)

    def draw(number: int) -> Batch:
        indices = range(number * ENCODED, min((number + 1) * ENCODED, own.cache))
        return Batch.of([scene_of(scenes, own.seed, index) for index in indices])

    paths = [directory / f"{part:04}.safetensors" for part in range(-(-own.cache // PART))]
    first = sum(path.exists() for path in paths)  # they were written in this order
    encoded: list[tuple[Tensor, Tensor]] = []
    batches = range(first * PART // ENCODED, -(-own.cache // ENCODED))
    drawn = stream(draw, batches.start, batches.stop, settings.workers)
    for number, batch in zip(batches, drawn, strict=True):
        encoded.append(_encode(composer, judge, vae, projection, batch))
        if (number + 1) * ENCODED % PART == 0 or number + 1 == batches.stop:
            _write(encoded, paths[number * ENCODED // PART])
            encoded.clear()
    parts = [load_file(path, device=str(device)) for path in paths]
    return Cache(*(torch.cat([part[name] for part in parts]) for name in ("latents", "features")))


def _write(encoded: list[tuple[Tensor, Tensor]], path: Path) -> None:
    columns = [torch.cat(column).contiguous() for column in zip(*encoded, strict=True)]
    partial = path.with_suffix(".partial")
    save_file(dict(zip(("latents", "features"), columns, strict=True)), partial)
    partial.rename(path)
    print(f"latents: {path.name}", flush=True)


def aligned_projection(settings: Settings, device: torch.device) -> Tensor:
    """[ALIGNED, F], random and fixed: it keeps the angles between features nearly as they are."""
    generator = torch.Generator().manual_seed(settings.transformer.seed)
    features = settings.judge.widths[-1]
    return torch.randn(ALIGNED, features, generator=generator).div(features**0.5).to(device)


def _encode(
    composer: Composer, judge: JudgeNet, vae: AutoencoderKL, projection: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    pictures = composer.render(batch).contiguous(memory_format=torch.channels_last)
    with torch.autocast(composer.device.type, torch.bfloat16):
        latents = vae.encode(pictures).latent_dist.mean
        features = judge.levels(pictures)[-1]
    aligned = torch.einsum("oc,bchw->bohw", projection, features.float())
    return latents.half().cpu(), aligned.half().cpu()


def sample_times(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Logit-normal t in (0, 1) (Esser et al., 2024, section 3.1), shifted toward noise."""
    t = torch.randn(count, generator=generator, device=generator.device).sigmoid()
    return shift * t / (1 + (shift - 1) * t)


class Student(nn.Module):
    """All that is trained: the transformer, its text towers, and the head that is aligned."""

    def __init__(self, tokenizer: CLIPTokenizer, settings: Settings) -> None:
        super().__init__()
        own = settings.transformer
        self.transformer = build(settings)
        self.text = Towers(tokenizer, settings)
        width = own.heads * own.head_dim
        self.align = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, ALIGNED)
        )

    def optimizers(self, settings: Settings) -> list[torch.optim.Optimizer]:
        """Muon for the matrices inside the blocks, AdamW for everything else.

        The modulation layers stay with AdamW: they are a third of the weights and see one token.
        """
        own = settings.transformer
        inner = {
            name: p
            for name, p in self.transformer.named_parameters()
            if name.startswith("transformer_blocks") and p.ndim == 2 and "norm" not in name
        }
        outer = [p for name, p in self.transformer.named_parameters() if name not in inner]
        return [
            Muon(list(inner.values()), lr=own.muon_lr, weight_decay=0.01),
            adamw([*outer, *self.align.parameters()], own.adamw_lr),
            adamw(self.text.parameters(), own.text_lr),
        ]


@dataclass(frozen=True)
class Draw:
    """What a step needs from the CPU: cached scenes' indices, ids [B, tokens], a seed."""

    index: Tensor
    ids: Tensor
    seed: int
    long: bool


@contextlib.contextmanager
def middle(model: SD3Transformer2DModel, layer: int) -> Iterator[list[Tensor]]:
    """What the ``layer``-th block gives the next one for the picture's tokens, while it is open."""
    kept: list[Tensor] = []
    handle = model.transformer_blocks[layer - 1].register_forward_hook(
        lambda module, inputs, output: kept.append(output[1])
    )
    try:
        yield kept
    finally:
        handle.remove()


def compile_blocks(model: SD3Transformer2DModel) -> None:
    """Compile the blocks, all as one; what cannot be compiled runs as it is."""
    dynamo.config.suppress_errors = True
    for block in model.transformer_blocks:
        block.forward = torch.compile(block.forward, dynamic=False)


@dataclass
class Flow:
    """The rectified-flow loss of a batch of cached scenes."""

    student: Student
    cache: Cache
    settings: Settings

    def __call__(self, batch: Draw, progress: float) -> dict[str, Tensor]:
        own, device = self.settings.transformer, self.cache.latents.device
        generator = torch.Generator(device).manual_seed(batch.seed)
        index = batch.index.to(device)
        latents = self.cache.normalised(index)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        t = sample_times(len(latents), own.shift, generator)
        padding = 256 if batch.long else own.padding
        sequence, pooled = self.student.text(batch.ids.to(device), padding)
        eager = batch.long and hasattr(torch.compiler, "set_stance")
        stance = torch.compiler.set_stance("force_eager") if eager else contextlib.nullcontext()
        with stance, middle(self.student.transformer, own.alignment_layer) as kept:
            velocity = self.student.transformer(
                hidden_states=torch.lerp(latents, noise, t.view(-1, 1, 1, 1)),
                timestep=1000 * t,
                encoder_hidden_states=sequence,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
        flow = (velocity.float() - (noise - latents)).square().mean()
        agreement = self._agreement(kept[0], index)
        weight = own.alignment if progress < own.alignment_until else 0.0
        return {"loss": flow - weight * agreement, "flow": flow, "agreement": agreement}

    def _agreement(self, hidden: Tensor, index: Tensor) -> Tensor:
        """Mean cosine of the projected tokens to the judge's features of the same place."""
        target = self.cache.features[index].float().flatten(2).mT
        side = int(hidden.shape[1] ** 0.5)
        if side * side != target.shape[1]:
            raise ValueError("the judge's coarsest map and the transformer's tokens do not match")
        projected = self.student.align(hidden).float()
        return functional.cosine_similarity(projected, target, dim=-1).mean()


@dataclass
class Trained:
    """What the stage made: averaged weights, the tokenizer, and the latents' shift and scale."""

    transformer: SD3Transformer2DModel
    text: Towers
    tokenizer: CLIPTokenizer
    shift: float
    scale: float


def train(
    scenes: Scenes,
    composer: Composer,
    judge: JudgeNet,
    vae: AutoencoderKL,
    settings: Settings,
    work: Path,
    seconds: float | None,
) -> Trained:
    """Train, resume, or load what was trained; ``seconds`` include filling the cache."""
    own, device, begun = settings.transformer, composer.device, time.monotonic()
    tokenizer = load_tokenizer(scenes, settings, work, own.seed)
    cache = fill_cache(scenes, composer, judge, vae, settings, work)
    if seconds:
        seconds = max(1.0, seconds - (time.monotonic() - begun))
    torch.manual_seed(own.seed)
    student = Student(tokenizer, settings).to(device)
    average = copy.deepcopy(student).requires_grad_(False)
    pairs = [list(module.parameters()) for module in (average, student)]

    @torch.no_grad()
    def update_average(step: int) -> None:
        rate = min(own.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(*pairs, 1 - rate)

    run = Run(
        work / "transformer", {"student": student, "average": average},
        student.optimizers(settings), Budget(own.steps, seconds), own.warmup, own.decay,
        after_step=update_average, workers=settings.workers,
    )  # fmt: skip

    def draw(step: int) -> Draw:
        rng = random.Random(f"{own.seed}/step/{step}")
        index = [rng.randrange(own.cache) for _ in range(own.batch)]
        captions = [
            "" if rng.random() < own.text_dropout else _caption(scenes, own.seed, i, rng)
            for i in index
        ]
        long = step % own.long_every == own.long_every - 1
        return Draw(torch.tensor(index), tokens(tokenizer, captions), rng.getrandbits(31), long)

    flow = Flow(student, cache, settings)
    if device.type == "cuda" and not run.done:
        compile_blocks(student.transformer)
    run.train(lambda batch: flow(batch, run.progress), draw)
    average.eval()
    return Trained(average.transformer, average.text, tokenizer, cache.shift, cache.scale)


def _caption(scenes: Scenes, seed: int, index: int, rng: random.Random) -> str:
    return say(scenes.facts(scene_of(scenes, seed, index), rng), rng)
