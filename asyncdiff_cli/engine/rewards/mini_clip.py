"""The cosine of picture and prompt under a small CLIP of mini's world, embedded in the package.

`python -m mini reward_clip` trained it, with a seed, scenes and a tokenizer of its own: it is
neither the model that conditions mini nor the one that mini is evaluated with.
`assets/mini_clip/README.md` has what was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from accelerate import init_empty_weights
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from typing_extensions import Self

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.rewards.base import distinct
from asyncdiff_cli.engine.rewards.checkpoints import fill, read_state_dict
from asyncdiff_cli.engine.rewards.embedded import WEIGHTS_FILE, EmbeddedReward
from asyncdiff_cli.engine.rewards.mini_quality import to_pixels
from asyncdiff_cli.engine.text import one_line


class MiniClip(EmbeddedReward):
    """The plain cosine. It knows the words of `assets/mini/vocabulary.json`; others are spelt out.

    A picture of another size is stretched to 128×128 pixels, bicubic and antialiased. A prompt is
    cut to 16 tokens.
    """

    name: ClassVar[str] = "mini_clip"
    files: ClassVar[tuple[str, ...]] = (
        "config.json", WEIGHTS_FILE, "tokenizer.json", "tokenizer_config.json"
    )  # fmt: skip
    stage: ClassVar[str] = "reward_clip"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.model, self._tokenizer = model.eval().requires_grad_(False), tokenizer

    @classmethod
    def _read(cls, directory: Path) -> Self:
        """What `CLIPModel.save_pretrained` and `CLIPTokenizer.save_pretrained` wrote."""
        try:
            with init_empty_weights():
                model = CLIPModel(CLIPConfig.from_pretrained(directory))
            tokenizer = CLIPTokenizer.from_pretrained(directory)
        except Exception as error:  # transformers and tokenizers raise bare ones for broken files
            raise AsyncDiffError(
                f"{directory} is damaged, reinstall asyncdiff ({one_line(error)})"
            ) from None
        fill(model, read_state_dict(directory / WEIGHTS_FILE), cls.name)
        return cls(model, tokenizer)

    def embed_images(self, images: list[Image.Image]) -> Tensor:
        """fp32 [N, projection], of unit length."""
        side = self.model.config.vision_config.image_size
        pictures = torch.stack([to_pixels(_resized(image, side)) for image in images])
        features = self.model.get_image_features(pictures.to(self.device, self.dtype))
        return functional.normalize(features.pooler_output.float(), dim=-1)

    def embed_texts(self, prompts: list[str]) -> Tensor:
        """fp32 [N, projection], of unit length."""
        tokens = self._tokenizer(
            prompts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        features = self.model.get_text_features(tokens.to(self.device))
        return functional.normalize(features.pooler_output.float(), dim=-1)

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        texts, which = distinct(prompts)
        cosines = (self.embed_images(images) * self.embed_texts(texts)[which]).sum(-1)
        return cosines.clamp(-1, 1)  # rounding can leave the range by 1e-7


def _resized(image: Image.Image, side: int) -> Image.Image:
    picture = image.convert("RGB")
    if picture.size == (side, side):
        return picture
    return picture.resize((side, side), Image.Resampling.BICUBIC)
