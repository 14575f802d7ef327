"""HPSv2: cosine under a CLIP ViT-H/14 that was tuned on human preferences (Wu et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import open_clip
from PIL import Image
from torch import Tensor

from asyncdiff_cli.engine.rewards import preprocessing
from asyncdiff_cli.engine.rewards.published import CosineReward


class HPSv2(CosineReward):
    """Human Preference Score v2 (arXiv 2306.09341): cosine, about 0.27.

    These are the weights of v2.0, which `hpsv2.score` of the published package uses; `HPSv21` has
    those of v2.1, which its `evaluate` uses. The scores of the two are not comparable.
    """

    name: ClassVar[str] = "hpsv2"
    config: ClassVar[Mapping[str, Any]] = open_clip.get_model_config("ViT-H-14")
    repo: ClassVar[str] = "xswu/HPSv2"
    file: ClassVar[str] = "HPS_v2_compressed.pt"

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """A model of these sizes (open_clip's configuration) with random weights."""
        config = config or self.config
        sizes = {name: config[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
        self.model = open_clip.CLIP(**sizes).eval().requires_grad_(False)
        # the vocabulary that open_clip ships is the one that the published package ships
        self._tokenize = open_clip.SimpleTokenizer()

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """[N, 3, 224, 224]."""
        return preprocessing.pad(images)

    def tokens(self, prompts: list[str]) -> Tensor:
        """[N, 77]."""
        return self._tokenize(prompts)

    def _image_features(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    def _text_features(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


class HPSv21(HPSv2):
    """HPSv2 with the weights of v2.1."""

    name: ClassVar[str] = "hpsv2.1"
    file: ClassVar[str] = "HPS_v2.1_compressed.pt"
