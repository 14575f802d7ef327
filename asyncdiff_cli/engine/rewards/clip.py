"""CLIP score: the cosine of picture and prompt under OpenAI's CLIP ViT-L/14 (Radford et al., 2021).

It runs transformers' CLIP, whose published checkpoint has OpenAI's weights under its own names; the
tokenizer and the preprocessing are those of OpenAI's package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import open_clip
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel
from typing_extensions import Self

from asyncdiff_cli.engine.rewards import preprocessing
from asyncdiff_cli.engine.rewards.base import Reward, distinct
from asyncdiff_cli.engine.rewards.checkpoints import download, fill, read_state_dict

VIT_L_14: dict[str, Any] = {
    "text_config": {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
    },
    "projection_dim": 768,
}
EOS = 2
"""What the published configurations call the end of a text. It is not, and tells `CLIPModel` to
look for the highest token instead, as OpenAI's package does."""


class CLIPScore(Reward):
    """The plain cosine, about 0.26: not multiplied by 100 or 2.5, and not clipped at 0."""

    name: ClassVar[str] = "clip"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    config: ClassVar[Mapping[str, Any]] = VIT_L_14
    repo: ClassVar[str] = "openai/clip-vit-large-patch14"

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        chosen = config or self.config
        sizes = {name: chosen[name] for name in ("vision_config", "projection_dim")}
        text = {**chosen["text_config"], "eos_token_id": EOS}
        self.model = CLIPModel(CLIPConfig(text_config=text, **sizes)).eval().requires_grad_(False)
        self._tokenize = open_clip.SimpleTokenizer()

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> Self:
        """Build it from weights named as in the published checkpoint.

        Args:
            config: `text_config`, `vision_config` and `projection_dim` of a `CLIPConfig`; default
                that of the published checkpoint.

        Raises:
            AsyncDiffError: if the weights are not those of this configuration.
        """
        reward = cls(config)
        weights = {k: v for k, v in state_dict.items() if not k.endswith("position_ids")}
        fill(reward.model, weights, cls.name)
        return reward

    @classmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        """Load the published checkpoint from the hub, or from a local file of it.

        Raises:
            InputError, AsyncDiffError: as `checkpoints.download` and `read_state_dict`.
        """
        commit = None
        if path is None:
            path, commit = download(cls.name, cls.repo, "model.safetensors", revision)
        reward = cls.from_state_dict(read_state_dict(Path(path)))
        reward.revision = commit
        return reward

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """[N, 3, 224, 224]."""
        return preprocessing.crop(images)

    def tokens(self, prompts: list[str]) -> Tensor:
        """[N, length], cut to 77; what follows the end of a text is never looked at."""
        return self._tokenize(prompts)

    def embed_images(self, images: list[Image.Image]) -> Tensor:
        """fp32 [N, projection_dim], of unit length."""
        pixels = self.pixels(images).to(self.device, self.dtype)
        return _unit(self.model.get_image_features(pixels).pooler_output)

    def embed_texts(self, prompts: list[str]) -> Tensor:
        """fp32 [N, projection_dim], of unit length."""
        tokens = self.tokens(prompts).to(self.device)
        return _unit(self.model.get_text_features(tokens).pooler_output)

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        texts, which = distinct(prompts)
        return (self.embed_images(images) * self.embed_texts(texts)[which]).sum(-1)


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.float(), dim=-1)
