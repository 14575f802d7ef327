"""PickScore: a CLIP ViT-H/14 tuned on the choices of Pick-a-Pic's users (Kirstain et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import open_clip
from huggingface_hub import snapshot_download
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPTokenizer
from typing_extensions import Self

from asyncdiff_cli.engine.rewards import preprocessing
from asyncdiff_cli.engine.rewards.checkpoints import errors
from asyncdiff_cli.engine.rewards.clip import CLIPScore

VIT_H_14: dict[str, Any] = {
    "text_config": {
        "vocab_size": 49408,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
    "projection_dim": 1024,
}
CLIP_TOKENS = 77
PROCESSOR = ["tokenizer*", "vocab.json", "merges.txt", "*_config.json", "special_tokens_map.json"]
"""The small files of a processor's repository."""


class PickScore(CLIPScore):
    """PickScore v1 (arXiv 2305.01569): logit scale × cosine, about 22."""

    name: ClassVar[str] = "pickscore"
    range: ClassVar[tuple[float, float]] = (-100.0, 100.0)
    config: ClassVar[Mapping[str, Any]] = VIT_H_14
    repo: ClassVar[str] = "yuvalkirstain/PickScore_v1"
    processor_repo: ClassVar[str] = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """Where its model card takes the tokenizer and the preprocessing from."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.tokenizer = published_tokenizer()
        self.processor = CLIPImageProcessorPil(
            image_mean=list(preprocessing.MEAN), image_std=list(preprocessing.STD)
        )

    @classmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        """Load the published checkpoint from the hub, with the processor that its card names.

        A local file is read with CLIP's published vocabulary and preprocessing, unless the
        processor's own files (`tokenizer.json`, `preprocessor_config.json`) lie beside it.

        Raises:
            InputError, AsyncDiffError: as `download_checkpoint` and `read_state_dict`.
        """
        reward = super().load(path, revision)
        if path is not None:
            folder = Path(path).parent
        else:
            with errors(cls.name, cls.processor_repo):
                folder = Path(snapshot_download(cls.processor_repo, allow_patterns=PROCESSOR))
        if path is None or (folder / "tokenizer.json").is_file():
            reward.tokenizer = CLIPTokenizer.from_pretrained(folder)
        if path is None or (folder / "preprocessor_config.json").is_file():
            reward.processor = CLIPImageProcessorPil.from_pretrained(folder)
        return reward

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """[N, 3, 224, 224], resized by PIL; the default processor resizes tensors (3.4e-3 off)."""
        return self.processor(images, return_tensors="pt").pixel_values

    def tokens(self, prompts: list[str]) -> Tensor:
        """[N, longest], cut to 77."""
        options = {"padding": True, "truncation": True, "max_length": CLIP_TOKENS}
        return self.tokenizer(prompts, return_tensors="pt", **options).input_ids

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        return self.model.logit_scale.float().exp() * super()._score(images, prompts)


def published_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer, from the merges that open_clip ships; the hub's has the same ones."""
    own = open_clip.SimpleTokenizer()
    vocabulary = {
        {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}.get(word, word): i
        for word, i in own.encoder.items()
    }
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_TOKENS)
