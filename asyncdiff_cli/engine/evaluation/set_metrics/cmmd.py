"""CMMD: maximum mean discrepancy of CLIP embeddings (Jayasumana et al., 2024, arXiv 2401.09603)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import open_clip
import torch
from accelerate import init_empty_weights
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from PIL import Image
from torch import Tensor
from torch.nn import functional
from typing_extensions import Self

from asyncdiff_cli.engine.downloads import file_sha256
from asyncdiff_cli.engine.evaluation.set_metrics.base import SetMetric, Terms
from asyncdiff_cli.engine.pictures import square
from asyncdiff_cli.engine.rewards.checkpoints import download_checkpoint, fill, read_state_dict
from asyncdiff_cli.engine.rewards.preprocessing import normalized

SIGMA = 10.0
"""The kernel's bandwidth, as in the paper."""
SCALE = 1000.0
"""What the paper multiplies the discrepancy with, to read it more easily."""
ROWS = 512
"""Rows of a matrix of kernel values that are in memory at once."""


class CMMD(SetMetric):
    """1000 times the squared discrepancy of CLIP ViT-L/14@336 embeddings under a Gaussian kernel.

    It is the biased estimate, as in the paper's code: of n pictures it is too large by at most
    1000 (1 − k) / n, k the mean kernel of two pictures, which is some 5 / n.
    """

    name: ClassVar[str] = "cmmd"
    at_drawn_size: ClassVar[bool] = False
    config: ClassVar[Mapping[str, Any]] = open_clip.get_model_config("ViT-L-14-336")
    repo: ClassVar[str] = "timm/vit_large_patch14_clip_336.openai"
    """Where open_clip takes OpenAI's weights from."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """The image tower of these sizes (open_clip's configuration) with random weights."""
        config = config or self.config
        sizes = {name: config[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
        self.model = open_clip.CLIP(**sizes, quick_gelu=True).visual.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Self:
        """Load the weights as open_clip has them; from the hub, or a local file.

        Raises:
            InputError, AsyncDiffError: as `download_checkpoint` and `read_state_dict`.
        """
        if path is None:
            path, _ = download_checkpoint(cls.name, cls.repo, HF_SAFE_WEIGHTS_NAME)
        with init_empty_weights():
            metric = cls()
        weights = read_state_dict(Path(path))
        images = {k.removeprefix("visual."): v for k, v in weights.items() if "visual." in k}
        fill(metric.model, images, cls.name)
        metric.weights = file_sha256(Path(path))[:16]
        return metric

    def _features(self, images: list[Image.Image]) -> Tensor:
        """Embeddings of unit length."""
        side = self.model.image_size[0]
        pixels = torch.stack([normalized(square(image, side)) for image in images])
        return functional.normalize(self.model(pixels.to(self.device)), dim=-1)

    @staticmethod
    def statistics(features: Tensor) -> dict[str, Tensor]:
        """The `embeddings` [M, F] themselves, and the mean kernel `within` them."""
        return {"embeddings": features, "within": mean_kernel(features, features).mean()}

    @staticmethod
    def against(statistics: Mapping[str, Tensor]) -> Terms:
        """Eq. 5 of Gretton et al. (2012), linearised: the derivative towards picture i is
        2 (k̄(x_i, X) − k̄(X, X)) − 2 (k̄(x_i, Y) − k̄(X, Y))."""

        def terms(features: Tensor) -> Tensor:
            within = mean_kernel(features, features)
            across = mean_kernel(features, statistics["embeddings"])
            return SCALE * (2 * within - within.mean() - 2 * across + statistics["within"])

        return terms


def mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    """The mean over y [M, F] of exp(−|x − y|² / 2σ²) for each x [N, F], fp64 [N]."""
    y = y.double()
    means = [
        torch.exp(-torch.cdist(part, y).square() / (2 * SIGMA**2)).mean(1)
        for part in x.double().split(ROWS)
    ]
    return torch.cat(means)
