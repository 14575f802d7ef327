"""CLIP score: the cosine of picture and prompt under OpenAI's CLIP ViT-L/14 (Radford et al., 2021).

It runs transformers' CLIP, whose published checkpoint has OpenAI's weights under its own names; the
tokenizer and the preprocessing are those of OpenAI's package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import open_clip
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from asyncdiff_cli.engine.rewards import preprocessing
from asyncdiff_cli.engine.rewards.published import CosineReward

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


class CLIPScore(CosineReward):
    """The plain cosine, about 0.26: not multiplied by 100 or 2.5, and not clipped at 0."""

    name: ClassVar[str] = "clip"
    config: ClassVar[Mapping[str, Any]] = VIT_L_14
    repo: ClassVar[str] = "openai/clip-vit-large-patch14"
    file: ClassVar[str] = "model.safetensors"

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """A model of these sizes (those of a `CLIPConfig`) with random weights."""
        config = config or self.config
        sizes = {name: config[name] for name in ("vision_config", "projection_dim")}
        text = {**config["text_config"], "eos_token_id": EOS}
        self.model = CLIPModel(CLIPConfig(text_config=text, **sizes)).eval().requires_grad_(False)
        self._tokenize = open_clip.SimpleTokenizer()

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """[N, 3, 224, 224]."""
        return preprocessing.crop(images)

    def tokens(self, prompts: list[str]) -> Tensor:
        """[N, 77]."""
        return self._tokenize(prompts)

    def _image_features(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixels).pooler_output

    def _text_features(self, tokens: Tensor) -> Tensor:
        return self.model.get_text_features(tokens).pooler_output

    @classmethod
    def _rename(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # older checkpoints hold these constants as weights
        return {k: v for k, v in state_dict.items() if not k.endswith("position_ids")}
