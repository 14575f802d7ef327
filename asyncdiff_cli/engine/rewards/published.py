"""What the published rewards share: their checkpoints, and cosines of embeddings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from accelerate import init_empty_weights
from PIL import Image
from torch import Tensor
from torch.nn import functional
from typing_extensions import Self

from asyncdiff_cli.engine.rewards.base import Reward, distinct
from asyncdiff_cli.engine.rewards.checkpoints import download_checkpoint, fill, read_state_dict


class PublishedReward(Reward):
    """A reward whose weights are a file of a hub repository."""

    longest: ClassVar[float] = 400
    config: ClassVar[Mapping[str, Any]]
    """The sizes of the published model."""
    repo: ClassVar[str]
    file: ClassVar[str]

    @abstractmethod
    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """A model of these sizes (default the published ones) with random weights."""

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
    ) -> Self:
        """Build it from weights named as in the published checkpoint.

        Args:
            config: sizes as in the attribute `config`, which is the default.

        Raises:
            AsyncDiffError: if the weights are not those of this configuration.
        """
        with init_empty_weights():
            reward = cls(config)
        fill(reward.model, cls._rename(state_dict), cls.name)
        return reward

    @classmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        """Load the published checkpoint from the hub, or from a local file of it.

        Raises:
            InputError, AsyncDiffError: as `download_checkpoint` and `read_state_dict`.
        """
        commit = None
        if path is None:
            path, commit = download_checkpoint(cls.name, cls.repo, cls.file, revision)
        reward = cls.from_state_dict(read_state_dict(Path(path)))
        reward.revision = commit
        return reward

    @classmethod
    def _rename(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights by the names that the model here has for them."""
        return dict(state_dict)


class CosineReward(PublishedReward):
    """The cosine of the embeddings of picture and prompt, each distinct prompt embedded once."""

    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    @abstractmethod
    def pixels(self, images: list[Image.Image]) -> Tensor:
        """[N, 3, 224, 224]."""

    @abstractmethod
    def tokens(self, prompts: list[str]) -> Tensor:
        """[N, length], cut to 77; what follows the end of a text is never looked at."""

    @abstractmethod
    def _image_features(self, pixels: Tensor) -> Tensor:
        """[N, dim]."""

    @abstractmethod
    def _text_features(self, tokens: Tensor) -> Tensor:
        """[N, dim]."""

    def embed_images(self, images: list[Image.Image]) -> Tensor:
        """fp32 [N, dim], of unit length."""
        features = self._image_features(self.pixels(images).to(self.device, self.dtype))
        return functional.normalize(features.float(), dim=-1)

    def embed_texts(self, prompts: list[str]) -> Tensor:
        """fp32 [N, dim], of unit length."""
        features = self._text_features(self.tokens(prompts).to(self.device))
        return functional.normalize(features.float(), dim=-1)

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        texts, which = distinct(prompts)
        return (self.embed_images(images) * self.embed_texts(texts)[which]).sum(-1)
