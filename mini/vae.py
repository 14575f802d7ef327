"""Stage ``vae``: the AutoencoderKL (f8, 16 channels), trained on crops and then whole pictures."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from mini.data import Composer
from mini.settings import Settings
from mini.training import Run, pick_device


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
        sample_size=settings.scenes.size,
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


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """uint8 [H, W, 3] pictures to [B, 3, H, W] in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked.float() / 127.5 - 1


def draw_batch(composer: Composer, settings: Settings, step: int) -> Tensor:
    """The batch of ``step``: one crop from each of ``batch`` scenes, or fewer whole scenes."""
    rng = np.random.default_rng((settings.vae.seed, step))
    crop, size = settings.vae.crop, settings.scenes.size
    if step >= settings.vae.whole_from * settings.vae.steps:
        count = max(1, settings.vae.batch * crop**2 // size**2)
        return to_tensor([composer.compose(rng).picture for _ in range(count)])
    pictures = []
    for _ in range(settings.vae.batch):
        top, left = rng.integers(0, size - crop + 1, 2)
        pictures.append(composer.compose(rng).picture[top : top + crop, left : left + crop])
    return to_tensor(pictures)


def losses(vae: AutoencoderKL, pictures: Tensor, kl_weight: float) -> dict[str, Tensor]:
    """L1, L1 of the image gradients (edges), and a light KL to the unit Gaussian."""
    posterior = vae.encode(pictures).latent_dist
    decoded = vae.decode(posterior.sample()).sample.float()
    error = decoded - pictures
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    psnr = 10 * torch.log10(4 / error.detach().square().mean())
    return {"loss": error.abs().mean() + 0.5 * edges + kl_weight * kl, "kl": kl, "psnr": psnr}


def train(composer: Composer, settings: Settings, work: Path) -> AutoencoderKL:
    device = pick_device()
    torch.manual_seed(settings.vae.seed)
    vae = build(settings).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=settings.vae.lr, weight_decay=1e-4)
    run = Run(work / "vae", {"vae": vae}, [optimizer], settings.vae.steps, decay=0.4)

    def loss_at(step: int) -> dict[str, Tensor]:
        torch.manual_seed(settings.vae.seed * 2**32 + step)
        pictures = draw_batch(composer, settings, step).to(device)
        return losses(vae, pictures.contiguous(memory_format=torch.channels_last), settings.vae.kl)

    run.train(loss_at)
    return vae.eval()
