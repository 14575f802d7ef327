"""Several rewards together, as training needs them: loaded once, and in turns on a small GPU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from asyncdiff_cli.engine.backbones import resolve_device
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.rewards import load_reward
from asyncdiff_cli.engine.rewards.base import BadScoreError
from asyncdiff_cli.engine.rewards.composite import composite, parse_weights


class RewardGroup:
    """The rewards of a recipe with their weights.

    Args:
        weights: per reward a weight, as in `parse_weights`.
        paths: local files in place of the hub's, by reward.
        device: default CUDA where there is one.
        dtype: default each reward's own.
        offload: keep the models in CPU memory, and only the one that scores on the device. There
            is nothing to move where the device is the CPU.
        keep: directory for an image whose score is not a number.

    Raises:
        InputError, AsyncDiffError: as `load_reward`, for the first reward that cannot be loaded.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        paths: Mapping[str, str | Path] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        offload: bool = False,
        keep: str | Path = ".",
    ) -> None:
        self.weights, self.offload, self.keep = parse_weights(weights), offload, Path(keep)
        self.device = resolve_device(device, torch.float32)[0]
        waiting = "cpu" if offload else self.device
        self.rewards = {
            name: load_reward(name, (paths or {}).get(name), self.device, dtype).to(waiting)
            for name in self.weights
        }

    def score(
        self, images: Sequence[Image.Image], prompts: str | Sequence[str]
    ) -> dict[str, Tensor]:
        """The scores of each reward, fp32 [N] on the CPU.

        Raises:
            AsyncDiffError: for a score that is NaN or infinite, naming the image and keeping it.
        """
        scores = {}
        for name, reward in self.rewards.items():
            reward.to(self.device)
            try:
                scores[name] = reward.score(images, prompts)
            except BadScoreError as error:
                kept = _kept(images[error.index], self.keep, f"{name}-image{error.index}-")
                raise AsyncDiffError(f"{error}, which is kept as {kept}") from None
            if self.offload:
                reward.to("cpu")
        return scores

    def composite(self, scores: Mapping[str, Tensor]) -> Tensor:
        """R of one group of images of one prompt, fp64 [N] (Eq. 16)."""
        return composite(scores, self.weights)


def _kept(image: Image.Image, directory: Path, prefix: str) -> str:
    """A new file of an image, where it can be looked at."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=directory, prefix=prefix, suffix=".png", delete=False
    ) as file:
        image.save(file, format="PNG")
    return file.name
