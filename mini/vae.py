"""Stage ``vae``: the AutoencoderKL (f8, 16 channels), trained on crops and then whole pictures."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional

from asyncdiff_cli.engine.rewards.world.judge import JudgeNet
from mini.compose import Composer
from mini.scenes import Batch, Scenes
from mini.settings import SIZE, Settings
from mini.training import Budget, Run, adamw

WHOLE_FROM = 0.75  # from this share of the training on, whole pictures instead of crops
PATCH = 16  # side of the patches whose spectra are compared


def build(settings: Settings) -> AutoencoderKL:
    """Three halvings, no attention: convolutional, so that crops teach it whole pictures."""
    levels = len(settings.vae.channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.vae.channels,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=settings.vae.latent_channels,
        sample_size=SIZE,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    _initialise(vae, settings.vae.latent_channels)
    return vae


@torch.no_grad()
def _initialise(vae: AutoencoderKL, latent_channels: int) -> None:
    """Start as a nearly linear isometry with a narrow posterior.

    From the default initialisation the model draws one flat colour for its first 400 steps; from
    this one it shows shapes after 60.
    """
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.orthogonal_(module.weight)
            nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
    vae.encoder.conv_out.bias[latent_channels:] = -4.0


def crops(pictures: Tensor, side: int) -> Tensor:
    """One crop [side, side] from each picture, at a random place."""
    count, _, height, width = pictures.shape
    device = pictures.device
    top = torch.randint(0, height - side + 1, (count, 1, 1), device=device)
    left = torch.randint(0, width - side + 1, (count, 1, 1), device=device)
    line = torch.arange(side, device=device)
    index = torch.arange(count, device=device)[:, None, None]
    rows, columns = top + line[:, None], left + line
    return pictures.permute(0, 2, 3, 1)[index, rows, columns].movedim(-1, 1)


def perceptual(judge: JudgeNet, decoded: Tensor, pictures: Tensor) -> Tensor:
    """The squared distance of the judge's features, each of unit length (as LPIPS, unweighted)."""
    with torch.no_grad():
        targets = judge.levels(pictures)
    total = decoded.new_zeros(())
    for own, target in zip(judge.levels(decoded), targets, strict=True):
        unit = (functional.normalize(maps.float(), dim=1) for maps in (own, target))
        total = total + functional.mse_loss(*unit) * own.shape[1]
    return total


def spectra(pictures: Tensor) -> Tensor:
    """Log amplitudes of windowed patches: the texture, whatever its phases."""
    window = torch.hann_window(PATCH, device=pictures.device)
    patches = pictures.unfold(2, PATCH, PATCH // 2).unfold(3, PATCH, PATCH // 2)
    amplitudes = torch.fft.rfft2(patches * window * window[:, None], norm="ortho").abs()
    return (amplitudes + 0.01).log()


def losses(
    vae: AutoencoderKL, judge: JudgeNet, pictures: Tensor, settings: Settings
) -> dict[str, Tensor]:
    """L1 of pixels and edges, the judge's features, patch spectra, and a light KL."""
    own = settings.vae
    posterior = vae.encode(pictures).latent_dist
    decoded = vae.decode(posterior.sample()).sample.float()
    error = decoded - pictures
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    features = perceptual(judge, decoded, pictures)
    texture = (spectra(decoded) - spectra(pictures)).abs().mean()
    loss = error.abs().mean() + 0.5 * edges + own.kl * kl
    psnr = 10 * torch.log10(4 / error.detach().square().mean())
    return {
        "loss": loss + own.perceptual * features + own.spectral * texture,
        "kl": kl,
        "features": features,
        "texture": texture,
        "psnr": psnr,
    }


def train(
    scenes: Scenes,
    composer: Composer,
    judge: JudgeNet,
    settings: Settings,
    work: Path,
    seconds: float | None,
) -> AutoencoderKL:
    """Train, resume, or load a trained VAE."""
    own, device = settings.vae, composer.device
    torch.manual_seed(own.seed)
    vae = build(settings).to(device, memory_format=torch.channels_last)
    run = Run(
        work / "vae", {"vae": vae}, [adamw(vae.parameters(), own.lr, 1e-4)],
        Budget(own.steps, seconds), decay=0.4, workers=settings.workers,
    )  # fmt: skip

    def draw(step: int) -> Batch:
        rng = random.Random(f"{own.seed}/{step}")
        return Batch.of([scenes.draw(rng) for _ in range(own.batch)])

    def loss_at(batch: Batch) -> dict[str, Tensor]:
        torch.manual_seed(int(batch.noise[0]))
        if own.crop < SIZE and run.progress >= WHOLE_FROM:
            batch = batch[: max(1, own.batch * own.crop**2 // SIZE**2)]
        pictures = composer.render(batch)
        if own.crop < SIZE and run.progress < WHOLE_FROM:
            pictures = crops(pictures, own.crop)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        return losses(vae, judge, pictures, settings)

    run.train(loss_at, draw)
    return vae.eval().requires_grad_(False)
