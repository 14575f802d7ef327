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

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.rewards.base import Reward, distinct
from asyncdiff_cli.engine.rewards.checkpoints import fill, read_state_dict
from asyncdiff_cli.engine.rewards.mini_quality import to_pixels
from asyncdiff_cli.engine.text import one_line

DIRECTORY = Path(__file__).parents[2] / "assets" / "mini_clip"
WEIGHTS = "model.safetensors"
FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")


class MiniClip(Reward):
    """The plain cosine. It knows the words of `assets/mini/vocabulary.json`; others are spelt out.

    A picture of another size is stretched to 128×128 pixels, bicubic and antialiased. A prompt is
    cut to 16 tokens.
    """

    name: ClassVar[str] = "mini_clip"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.model, self._tokenizer = model.eval().requires_grad_(False), tokenizer

    @classmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        """The shipped weights, or those in the directory `path`, in fp32 on the CPU.

        Raises:
            InputError: for a revision, which an embedded model does not have.
            AsyncDiffError: as `from_directory`.
        """
        if revision is not None:
            raise InputError(f"{cls.name} is a part of the package and has no revisions")
        return cls.from_directory(DIRECTORY if path is None else path)

    @classmethod
    def from_directory(cls, path: str | Path) -> Self:
        """Read what `CLIPModel.save_pretrained` and `CLIPTokenizer.save_pretrained` wrote.

        Raises:
            AsyncDiffError: if a file is missing or damaged, or they do not belong together.
        """
        directory = Path(path)
        if missing := [name for name in FILES if not (directory / name).is_file()]:
            raise AsyncDiffError(
                f"{directory} lacks {', '.join(missing)} of {cls.name}: reinstall asyncdiff, or"
                " train it with `python -m mini reward_clip`"
            )
        try:
            with init_empty_weights():
                model = CLIPModel(CLIPConfig.from_pretrained(directory))
            tokenizer = CLIPTokenizer.from_pretrained(directory)
        except Exception as error:  # transformers and tokenizers raise bare ones for broken files
            raise AsyncDiffError(
                f"{directory} is damaged, reinstall asyncdiff ({one_line(error)})"
            ) from None
        fill(model, read_state_dict(directory / WEIGHTS), cls.name)
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
