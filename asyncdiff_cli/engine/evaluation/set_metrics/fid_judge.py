"""The Fréchet distance of what the judge of mini's world sees in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine.evaluation.set_metrics.frechet import FrechetMetric
from asyncdiff_cli.engine.rewards import local_weights
from asyncdiff_cli.engine.rewards.mini_judge import MiniJudge, pixels


class FIDJudge(FrechetMetric):
    """FID on the judge's pooled features of 128×128 pixels: things, colours and grounds.

    Blur and noise hardly move it: the judge is trained to see through them.
    """

    name: ClassVar[str] = "fid_judge"

    @classmethod
    def load(cls, path: str | Path | None = None) -> Self:
        """The judge of mini's world: the shipped one, or that of a directory.

        Raises:
            InputError, AsyncDiffError: as `MiniJudge.load`.
        """
        metric = cls()
        metric.model = MiniJudge.load(path).model
        metric.weights = local_weights(MiniJudge.name, path)
        return metric

    def _features(self, images: list[Image.Image]) -> Tensor:
        return self.model(torch.stack([pixels(image) for image in images]).to(self.device)).features
