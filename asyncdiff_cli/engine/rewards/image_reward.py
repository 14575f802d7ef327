"""ImageReward: BLIP with a regression head, tuned on expert rankings (Xu et al., 2023)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
)

from asyncdiff_cli.engine.rewards import preprocessing
from asyncdiff_cli.engine.rewards.published import PublishedReward

VOCABULARY = Path(str(files("asyncdiff_cli"))) / "assets" / "bert" / "vocab.txt"
"""The vocabulary of bert-base-uncased: the checkpoint has none of its own."""
BERT_TOKENS = 35

CONFIG: dict[str, Any] = {
    "vision": {
        "img_size": 224,
        "patch_size": 16,
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "mlp_ratio": 4,
        "norm_eps": 1e-6,
    },
    "med_config": {
        "vocab_size": 30524,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    },
    "reward_mean": 0.16717362830052426,
    "reward_std": 1.0333394966054072,
}
"""ImageReward v1.0; mean and standard deviation are those by which the package standardises."""

RENAMED = (
    (r"^blip\.visual_encoder\.", "vision."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^mlp\.layers\.", "head."),
    (r"^vision\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^vision\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^vision\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^vision\.norm\.", "vision.post_layernorm."),
    (r"^vision\.blocks\.(\d+)\.norm(\d)\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (r"^vision\.blocks\.(\d+)\.attn\.qkv\.", r"vision.encoder.layers.\1.self_attn.qkv."),
    (r"^vision\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"^vision\.blocks\.(\d+)\.mlp\.", r"vision.encoder.layers.\1.mlp."),
)
"""The checkpoint's names and those of the classes here, applied in this order."""
UNUSED_WEIGHTS = re.compile(r"position_ids$|^blip\.(vision|text)_proj\.")


class ImageReward(PublishedReward):
    """ImageReward v1.0 (arXiv 2304.05977): standardised to about mean 0 and deviation 1."""

    name: ClassVar[str] = "image_reward"
    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    config: ClassVar[Mapping[str, Any]] = CONFIG
    repo: ClassVar[str] = "THUDM/ImageReward"
    file: ClassVar[str] = "ImageReward.pt"

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """A model of these sizes (as in `CONFIG`) with random weights."""
        config = config or self.config
        self.model = Blip(config["vision"], config["med_config"]).eval().requires_grad_(False)
        self.mean, self.std = config["reward_mean"], config["reward_std"]
        words = VOCABULARY.read_text(encoding="utf-8").splitlines()
        self.tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})

    @classmethod
    def _rename(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {rename(k): v for k, v in state_dict.items() if not UNUSED_WEIGHTS.search(k)}

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """[N, 3, 224, 224]."""
        return preprocessing.crop(images)

    def tokens(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids, of which the first stays [CLS], and their mask, both [N, 35]."""
        options = {"padding": "max_length", "truncation": True, "max_length": BERT_TOKENS}
        encoded = self.tokenizer(prompts, return_tensors="pt", **options)
        return encoded.input_ids, encoded.attention_mask

    def embed_images(self, images: list[Image.Image]) -> Tensor:
        """[N, 1 + patches, embed_dim]."""
        return self.model.vision(self.pixels(images).to(self.device, self.dtype)).last_hidden_state

    def read(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """What the text encoder makes of each pair, [N, hidden_size]."""
        ids, mask = (tensor.to(self.device) for tensor in self.tokens(prompts))
        # configured as a decoder, to have cross-attention; called as an encoder, to see all words
        return self.model.text(
            ids, mask, encoder_hidden_states=self.embed_images(images), is_decoder=False
        ).last_hidden_state[:, 0]

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        raw = self.model.head(self.read(images, prompts)).float()[:, 0]
        return (raw - self.mean) / self.std


class Blip(nn.Module):
    """A vision transformer, a text encoder that attends to it, and a head of linear layers."""

    def __init__(self, vision: Mapping[str, Any], med: Mapping[str, Any]) -> None:
        super().__init__()
        self.vision = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=vision["embed_dim"],
                intermediate_size=vision["embed_dim"] * vision["mlp_ratio"],
                num_hidden_layers=vision["depth"],
                num_attention_heads=vision["num_heads"],
                image_size=vision["img_size"],
                patch_size=vision["patch_size"],
                layer_norm_eps=vision["norm_eps"],
            )
        )
        sizes = {name: med[name] for name in CONFIG["med_config"]}
        self.text = BlipTextModel(
            BlipTextConfig(encoder_hidden_size=vision["embed_dim"], is_decoder=True, **sizes),
            add_pooling_layer=False,
        )
        width = med["hidden_size"]
        self.head = nn.Sequential(
            nn.Linear(width, 1024), nn.Dropout(0.2),
            nn.Linear(1024, 128), nn.Dropout(0.2),
            nn.Linear(128, 64), nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )  # fmt: skip


def rename(key: str) -> str:
    """A weight's name here, from its name in the published checkpoint."""
    for pattern, name in RENAMED:
        key = re.sub(pattern, name, key)
    return key
