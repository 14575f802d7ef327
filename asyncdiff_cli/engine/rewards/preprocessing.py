"""Pictures as the published scorers read them: [N, 3, 224, 224], normalised as for CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
INPUT_SIZE = 224


def crop(images: Sequence[Image.Image], size: int = INPUT_SIZE) -> Tensor:
    """Crop as OpenAI's CLIP and ImageReward do.

    PIL resizes the shorter side with its bicubic filter, before the conversion to RGB, and the
    centre is cut out; a resize of tensors would move ImageReward by 1.4e-3.

    Returns:
        [N, 3, size, size], normalised as CLIP's.
    """
    return torch.stack([_crop(image, size) for image in images])


def _crop(image: Image.Image, size: int) -> Tensor:
    image = functional.resize(image, [size], InterpolationMode.BICUBIC)
    image = functional.center_crop(image, [size, size]).convert("RGB")
    return normalized(image)


def normalized(image: Image.Image) -> Tensor:
    """An RGB picture that has the size a network takes, [3, H, W]."""
    return _normalized(_to_tensor(image))


def pad(images: Sequence[Image.Image], size: int = INPUT_SIZE) -> Tensor:
    """Pad as HPSv2 does.

    The longer side is resized on the float tensor, bicubic with antialiasing and without
    clamping, and black fills the rest before the normalisation; nothing is cut off.

    Returns:
        [N, 3, size, size], normalised as CLIP's.
    """
    return torch.stack([_pad(image, size) for image in images])


def _pad(image: Image.Image, size: int) -> Tensor:
    pixels = _to_tensor(image.convert("RGB"))
    height, width = pixels.shape[-2:]
    scale = size / max(height, width)
    if scale != 1:
        new = [round(height * scale), round(width * scale)]
        pixels = functional.resize(pixels, new, InterpolationMode.BICUBIC, antialias=True)
        down, right = size - new[0], size - new[1]
        left, top = right // 2, down // 2
        pixels = functional.pad(pixels, [left, top, right - left, down - top])
    return _normalized(pixels)


def _to_tensor(image: Image.Image) -> Tensor:
    return functional.to_dtype(functional.pil_to_tensor(image), torch.float32, scale=True)


def _normalized(pixels: Tensor) -> Tensor:
    return functional.normalize(pixels, list(MEAN), list(STD))
