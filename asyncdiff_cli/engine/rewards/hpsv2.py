"""HPSv2: cosine under a CLIP ViT-H/14 that was tuned on human preferences (Wu et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import open_clip
from PIL import Image
from torch import Tensor
from torch.nn import functional
from typing_extensions import Self

from asyncdiff_cli.engine.rewards import preprocessing
from asyncdiff_cli.engine.rewards.base import Reward, distinct
from asyncdiff_cli.engine.rewards.checkpoints import download, fill, read_state_dict

CONFIG: dict[str, Any] = open_clip.get_model_config("ViT-H-14")


class HPSv2(Reward):
    """Human Preference Score v2 (arXiv 2306.09341): cosine, about 0.27.

    These are the weights of v2.0, which `hpsv2.score` of the published package uses; `HPSv21` has
    those of v2.1, which its `evaluate` uses. The scores of the two are not comparable.
    """

    name: ClassVar[str] = "hpsv2"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    config: ClassVar[Mapping[str, Any]] = CONFIG
    repo: ClassVar[str] = "xswu/HPSv2"
    file: ClassVar[str] = "HPS_v2_compressed.pt"

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        config = config or self.config
        sizes = {name: config[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
        self.model = open_clip.CLIP(**sizes).eval().requires_grad_(False)
        self._tokenize = open_clip.SimpleTokenizer(
            context_length=config["text_cfg"]["context_length"]
        )

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> Self:
        """Build it from weights named as in the published checkpoint.

        Args:
            config: `embed_dim`, `vision_cfg` and `text_cfg` of open_clip; default ViT-H-14.

        Raises:
            AsyncDiffError: if the weights are not those of this configuration.
        """
        reward = cls(config)
        fill(reward.model, dict(state_dict), cls.name)
        return reward

    @classmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        """Load the published checkpoint from the hub, or from a local file of it.

        Raises:
            InputError, AsyncDiffError: as `checkpoints.download` and `read_state_dict`.
        """
        commit = None
        if path is None:
            path, commit = download(cls.name, cls.repo, cls.file, revision)
        reward = cls.from_state_dict(read_state_dict(Path(path)))
        reward.revision = commit
        return reward

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """[N, 3, 224, 224]."""
        return preprocessing.pad(images)

    def tokens(self, prompts: list[str]) -> Tensor:
        """[N, 77], by the vocabulary that open_clip ships, as the published package does."""
        return self._tokenize(prompts)

    def embed_images(self, images: list[Image.Image]) -> Tensor:
        """fp32 [N, embed_dim], of unit length."""
        features = self.model.encode_image(self.pixels(images).to(self.device, self.dtype))
        return functional.normalize(features.float(), dim=-1)

    def embed_texts(self, prompts: list[str]) -> Tensor:
        """fp32 [N, embed_dim], of unit length."""
        features = self.model.encode_text(self.tokens(prompts).to(self.device))
        return functional.normalize(features.float(), dim=-1)

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        texts, which = distinct(prompts)
        return (self.embed_images(images) * self.embed_texts(texts)[which]).sum(-1)


class HPSv21(HPSv2):
    """HPSv2 with the weights of v2.1."""

    name: ClassVar[str] = "hpsv2.1"
    file: ClassVar[str] = "HPS_v2.1_compressed.pt"
