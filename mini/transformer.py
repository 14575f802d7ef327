"""Stage ``transformer``: the SD3 transformer, by rectified flow on cached latents."""

import copy
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mini.clip import ImageText, pool
from mini.data import Composer, Scene
from mini.settings import Settings
from mini.training import Run, pick_device
from mini.vae import to_tensor


def build(settings: Settings, latent_size: int) -> SD3Transformer2DModel:
    own, clip = settings.transformer, settings.clip
    width = own.heads * own.head_dim
    return SD3Transformer2DModel(
        sample_size=latent_size,
        patch_size=own.patch,
        in_channels=settings.vae.latent_channels,
        out_channels=settings.vae.latent_channels,
        num_layers=own.layers,
        attention_head_dim=own.head_dim,
        num_attention_heads=own.heads,
        caption_projection_dim=width,
        joint_attention_dim=2 * clip.text_width,
        pooled_projection_dim=2 * clip.projection,
        pos_embed_max_size=latent_size // own.patch,
        qk_norm="rms_norm",
    )


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, scenes: list[Scene], batch: int = 64) -> Tensor:
    """Latent means, unscaled, [N, C, h, w] fp16 on the CPU."""
    device = next(vae.parameters()).device
    latents = []
    for start in range(0, len(scenes), batch):
        pictures = to_tensor([scene.picture for scene in scenes[start : start + batch]])
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(pictures.to(device)).latent_dist
        latents.append(posterior.mean.half().cpu().contiguous())
    return torch.cat(latents)


@torch.no_grad()
def encode_captions(clip: ImageText, captions: list[str], padding: int) -> tuple[Tensor, Tensor]:
    """What ``StableDiffusion3Pipeline.encode_prompt`` returns: sequence and pooled embeddings.

    Args:
        padding: the number of zero tokens that stand where T5 would.
    """
    ids = clip.tokens(captions)
    outputs = [tower(ids, output_hidden_states=True) for tower in clip.texts]
    sequence = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
    return nn.functional.pad(sequence, (0, 0, 0, padding)), pooled


@dataclass
class Cache:
    """Compositions, drawn and encoded once: what they show, and their latents [N, C, h, w]."""

    scenes: list[Scene]
    latents: Tensor

    @cached_property
    def pairs(self) -> np.ndarray:
        """Indices of the compositions that show two things."""
        return np.array([i for i, scene in enumerate(self.scenes) if len(scene.objects) == 2])

    @cached_property
    def singles(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.scenes)), self.pairs)

    @cached_property
    def shift(self) -> float:
        return float(self.latents[:1024].float().mean())

    @cached_property
    def scale(self) -> float:
        return float(1 / self.latents[:1024].float().std())

    def normalised(self, index: Tensor) -> Tensor:
        """Zero mean and unit variance, as the VAE's shift and scaling factor make them."""
        return (self.latents[index].float() - self.shift) * self.scale


def fill_cache(composer: Composer, vae: AutoencoderKL, settings: Settings, work: Path) -> Cache:
    """Draw and encode the compositions in parts, so that an interrupted run goes on."""
    count, part = settings.transformer.cache, min(2048, settings.transformer.cache)
    scenes: list[Scene] = []
    latents = []
    for index in range(-(-count // part)):
        path = work / "latents" / f"{index:03}.safetensors"
        if not path.exists():
            drawn = pool(composer, settings.transformer.seed + 1000 * index, part)
            shown = json.dumps([(scene.objects, scene.colour) for scene in drawn])
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            save_file({"latents": encode_pictures(vae, drawn)}, partial, {"scenes": shown})
            partial.rename(path)
            print(f"latents: {(index + 1) * part} of {count}", flush=True)
        with safe_open(path, "pt") as file:
            latents.append(file.get_tensor("latents"))
            shown = json.loads(file.metadata()["scenes"])
        scenes += [Scene(None, tuple(objects), colour) for objects, colour in shown]
    return Cache(scenes, torch.cat(latents))


def sample_times(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Logit-normal t in (0, 1) (Esser et al., 2024, section 3.1), shifted toward noise."""
    t = torch.randn(count, generator=generator).sigmoid()
    return shift * t / (1 + (shift - 1) * t)


def optimizers(model: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else.

    The modulation layers stay with AdamW: they are a third of the weights and see one token.
    """
    inner = {
        name: p
        for name, p in model.named_parameters()
        if name.startswith("transformer_blocks") and p.ndim == 2 and "norm" not in name
    }
    outer = [p for name, p in model.named_parameters() if name not in inner]
    own = settings.transformer
    return [
        torch.optim.Muon(list(inner.values()), lr=own.muon_lr, weight_decay=0.01),
        torch.optim.AdamW(outer, lr=own.adamw_lr, weight_decay=0.01, betas=(0.9, 0.95)),
    ]


def draw_batch(
    cache: Cache, composer: Composer, settings: Settings, step: int
) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """Latents, captions (some empty), times and noise of ``step``."""
    own = settings.transformer
    rng = np.random.default_rng((own.seed, step + 1))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    if step < own.pairs_from:
        index = rng.choice(len(cache.scenes), own.batch, replace=False)
    else:
        pairs = round(own.pairs_share * own.batch)
        chosen = rng.choice(cache.pairs, pairs), rng.choice(cache.singles, own.batch - pairs)
        index = np.concatenate(chosen)
    captions = [
        "" if rng.random() < own.text_dropout else composer.caption(cache.scenes[i], rng)
        for i in index
    ]
    latents = cache.normalised(torch.from_numpy(index))
    noise = torch.randn(latents.shape, generator=generator)
    return latents, captions, sample_times(len(index), own.shift, generator), noise


def train(
    composer: Composer,
    vae: AutoencoderKL,
    clip: ImageText,
    settings: Settings,
    work: Path,
    resume: bool = True,
) -> tuple[SD3Transformer2DModel, Cache]:
    """Train or resume; returns the averaged weights and the cache (for its shift and scale).

    Args:
        resume: whether to go on to the last step; else the weights are the last checkpoint's.
    """
    own, device = settings.transformer, pick_device()
    cache = fill_cache(composer, vae, settings, work)
    torch.manual_seed(own.seed)
    model = build(settings, cache.latents.shape[-1]).to(device)
    average = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update_average() -> None:
        rate = min(own.ema, (run.step + 1) / (run.step + 10))
        pairs = zip(average.parameters(), model.parameters(), strict=True)
        for kept, current in pairs:
            kept.lerp_(current, 1 - rate)

    modules = {"model": model, "average": average}
    run = Run(
        work / "transformer",
        modules,
        optimizers(model, settings),
        own.steps,
        own.warmup,
        own.decay,
        after_step=update_average,
    )

    def loss_at(step: int) -> dict[str, Tensor]:
        latents, captions, t, noise = draw_batch(cache, composer, settings, step)
        latents, t, noise = latents.to(device), t.to(device), noise.to(device)
        long = step % own.long_every == own.long_every - 1
        sequence, pooled = encode_captions(clip, captions, 256 if long else own.padding)
        mixed = torch.lerp(latents, noise, t.view(-1, 1, 1, 1))
        velocity = model(
            hidden_states=mixed,
            timestep=1000 * t,
            encoder_hidden_states=sequence,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return {"loss": (velocity.float() - (noise - latents)).square().mean()}

    if resume:
        run.train(loss_at)
    return average.eval(), cache
