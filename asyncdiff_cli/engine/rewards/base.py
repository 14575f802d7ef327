"""What every reward is: a name, a range, and scores for pairs of an image and a prompt."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine.checks import check_unicode
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.pictures import rgb
from asyncdiff_cli.engine.rewards.precision import whole_fp32

REWARD_BATCH_SIZE = 16
"""Images that go through a reward model at once, unless asked otherwise."""


class BadScoreError(AsyncDiffError):
    """A score is NaN or infinite.

    Attributes:
        index: the place of its image.
    """

    def __init__(self, name: str, scores: Tensor, index: int, hint: str = "") -> None:
        super().__init__(f"{name} is {scores[index].item()} for image {index}{hint}")
        self.index = index


class Reward(ABC):
    """Scores images, each for its own prompt. A subclass defines `_score`.

    A score depends on its pair alone: a batch of N equals N single calls, up to the rounding of
    floating point.
    """

    name: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    """What a score can be at all; its usual values are much closer together."""
    reads_prompt: ClassVar[bool] = True
    smallest: ClassVar[int] = 1
    """Pixels that each side of an image must have."""
    longest: ClassVar[float] = math.inf
    """How many times as long as wide an image may be."""

    model: Any = None
    """The torch module; None for a formula."""
    revision: str | None = None
    """Commit of the hub repository that it was loaded from."""
    batch_size: int = REWARD_BATCH_SIZE

    @classmethod
    @abstractmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        """The reward with its own weights, in fp32 on the CPU.

        Args:
            path: a local copy of them.
            revision: branch, tag or commit of the hub repository that they are in.
        """

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self.model is None else next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.model is None else next(self.model.parameters()).dtype

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move the model; a formula stays where it is."""
        if self.model is not None:
            self.model.to(device=device, dtype=dtype)
        return self

    @torch.inference_mode()
    def score(
        self,
        images: Image.Image | Sequence[Image.Image],
        prompts: str | Sequence[str] | None = None,
    ) -> Tensor:
        """The scores of pairs, fp32 [N] on the CPU; a model in fp32 computes in no fewer bits.

        Args:
            images: PIL images of any mode, read as `rgb` makes them, of the sizes that
                `check_image` takes.
            prompts: one per image, or one for all of them; None only for a reward that reads none.

        Raises:
            InputError: if images and prompts do not pair up, or are not images and strings, or as
                `rgb` and `check_image`, or for a prompt that it `refuses`.
            BadScoreError: for a score that is NaN or infinite.
        """
        pictures = [images] if isinstance(images, Image.Image) else list(images)
        texts = self._pair(pictures, prompts)
        pictures = [rgb(picture) for picture in pictures]
        for picture in pictures:
            self.check_image(picture)
        if refusals := list(filter(None, map(self.refuses, dict.fromkeys(texts)))):
            raise InputError(refusals[0])
        with whole_fp32():
            chunks = [
                self._score(pictures[i : i + self.batch_size], texts[i : i + self.batch_size])
                for i in range(0, len(pictures), self.batch_size)
            ]
        scores = torch.cat([torch.zeros(0), *(chunk.float().cpu() for chunk in chunks)])
        for index in (~scores.isfinite()).nonzero().flatten().tolist():
            hint = "; in fp16 try fp32" if self.dtype is torch.float16 else ""
            raise BadScoreError(self.name, scores, index, hint)
        return scores

    @classmethod
    def check_image(cls, image: Image.Image) -> None:
        """Refuse an image that is too small, or too much longer than wide.

        Raises:
            InputError: for such an image.
        """
        short, long = sorted(image.size)
        needs = f"{cls.smallest}×{cls.smallest} pixels" if short < cls.smallest else None
        if long > cls.longest * short:
            needs = f"a picture at most {cls.longest:g} times as long as wide"
        if needs:
            raise InputError(f"{cls.name} needs {needs}; this one has {image.width}×{image.height}")

    @classmethod
    def refuses(cls, prompt: str) -> str | None:
        """Why a prompt cannot be read; None if it can, as most rewards can any text."""
        return None

    def details(
        self, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> list[list[dict[str, Any]]] | None:
        """What the score of each pair is the mean of, as JSON values; None where it is no mean."""
        return None

    @abstractmethod
    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """Scores of at most `batch_size` pairs of RGB images and prompts, [N] on any device."""

    def _pair(
        self, images: Sequence[Image.Image], prompts: str | Sequence[str] | None
    ) -> list[str]:
        for index, image in enumerate(images):
            if not isinstance(image, Image.Image):
                raise InputError(f"image {index} is a {type(image).__name__}, not a PIL image")
        if prompts is None and not self.reads_prompt:
            return [""] * len(images)
        if prompts is None:
            raise InputError(f"{self.name} needs a prompt for each image")
        texts = [prompts] * len(images) if isinstance(prompts, str) else list(prompts)
        if len(texts) != len(images):
            raise InputError(f"{len(texts)} prompts for {len(images)} images")
        if not all(isinstance(text, str) for text in texts):
            raise InputError("prompts are strings")
        check_unicode("a prompt", "".join(texts))
        return texts


def distinct(prompts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Each prompt once, and which of them each place has: a group of images shares its prompt."""
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    return list(numbers), [numbers[prompt] for prompt in prompts]
