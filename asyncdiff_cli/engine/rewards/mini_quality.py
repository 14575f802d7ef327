"""A small no-reference quality score: how little a picture was degraded, by its looks alone.

The weights come with the package. `python -m mini reward_quality` trained them to order pictures
by the strength of noise, blur, ringing and latent noise, and by what fewer and fewer steps of a
sampler leave of a scene, with the ranking loss of RankNet (Burges et al., 2005);
`assets/mini_quality/README.md` has what was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import Self

from asyncdiff_cli.engine.reading import Read, read_json
from asyncdiff_cli.engine.rewards.checkpoints import fill, read_state_dict
from asyncdiff_cli.engine.rewards.embedded import WEIGHTS_FILE, EmbeddedReward

DETAIL = 8.0
Width = Annotated[int, Field(ge=1, le=4096)]


class Residual(nn.Module):
    """Two 3×3 convolutions around a shortcut; no normalisation, which would hide the contrast."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = convolution(width, width)
        nn.init.zeros_(self.second.weight)  # starts as the shortcut alone

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps as `x`, [N, C, H, W]."""
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """The border repeats outward, so that a picture's edge does not look like one in it."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, padding_mode="replicate")
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def with_detail(pictures: Tensor) -> Tensor:
    """[N, 6, H, W]: the picture, and what its 3×3 mean leaves of it, `DETAIL` times as large.

    Weak noise and ringing are a few levels of 256, which the picture itself would drown.
    """
    padded = functional.pad(pictures, (1, 1, 1, 1), mode="replicate")
    detail = pictures - functional.avg_pool2d(padded, 3, stride=1)
    return torch.cat([pictures, DETAIL * detail], dim=1)


class QualityNet(nn.Module):
    """Convolutions, an average over all places, and two layers: a score for any size.

    Args:
        widths: channels at a half, a quarter, … of the resolution.
        hidden: width of the layer between the average and the score.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96), hidden: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, width in enumerate(widths):
            inputs, size = (widths[level - 1], 3) if level else (6, 5)
            layers += [convolution(inputs, width, size, stride=2), nn.ReLU(), Residual(width)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(widths[-1], hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores [N] of pictures [N, 3, H, W] in [-1, 1]; higher is cleaner."""
        return (self.raw(pictures) - self.shift) * self.scale

    def raw(self, pictures: Tensor) -> Tensor:
        """[N], in a unit of its own.

        The head leaves autocast for fp32: in bf16, close scores would tie.
        """
        features = self.features(with_detail(pictures)).mean((-2, -1))
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.to(self.head[0].weight.dtype))[:, 0]


class Sizes(Read):
    """A config.json of the network."""

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
    hidden: Width


class MiniQuality(EmbeddedReward):
    """The embedded quality score: clean scenes lie near 0, degraded pictures below.

    It reads pictures at their own resolution, RGB. One unit is the standard deviation of the
    score over the degradations that it was trained on.
    """

    name: ClassVar[str] = "mini_quality"
    files: ClassVar[tuple[str, ...]] = ("config.json", WEIGHTS_FILE)
    stage: ClassVar[str] = "reward_quality"
    range: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))
    reads_prompt: ClassVar[bool] = False

    def __init__(self, model: QualityNet) -> None:
        self.model = model.eval().requires_grad_(False)

    @classmethod
    def _read(cls, directory: Path) -> Self:
        config = read_json(directory / "config.json", Sizes)
        with init_empty_weights():
            model = QualityNet(config.widths, config.hidden)
        fill(model, read_state_dict(directory / WEIGHTS_FILE), cls.name)
        return cls(model)

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        scores = torch.empty(len(images))
        sizes = [image.size for image in images]
        for size in dict.fromkeys(sizes):
            places = [place for place, own in enumerate(sizes) if own == size]
            pictures = torch.stack([to_pixels(images[place]) for place in places])
            scores[places] = self.model(pictures.to(self.device, self.dtype)).float().cpu()
        return scores


def to_pixels(image: Image.Image) -> Tensor:
    """[3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return pixels.float() / 127.5 - 1
