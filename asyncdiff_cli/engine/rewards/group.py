"""Several rewards together, as training needs them: loaded once, and in turns on a small GPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from asyncdiff_cli.engine.devices import resolve_device
from asyncdiff_cli.engine.dtypes import dtype_name
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.files import unused, write_atomically
from asyncdiff_cli.engine.rewards import entry, local_weights, read_reward
from asyncdiff_cli.engine.rewards.base import BadScoreError, Reward
from asyncdiff_cli.engine.rewards.composite import composite, parse_weights


class Group(ABC):
    """Models that wait on the CPU until they are placed.

    Attributes:
        device: where they work.
        offload: whether they stay on the CPU, and a copy of the one that works is on the device.
    """

    device: torch.device
    offload: bool

    @property
    @abstractmethod
    def models(self) -> dict[str, nn.Module | None]:
        """The networks by the rewards' names; None for a formula."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each model."""
        return {
            name: sum(tensor.nbytes for tensor in tensors_of(model))
            for name, model in self.models.items()
        }

    def place(self) -> None:
        """Move the models to the device; those that are offloaded get ready to be lent to it.

        Raises:
            AsyncDiffError: if it has no room for them.
        """
        try:
            for model in self.models.values():
                if self.offload:
                    pin(model)
                elif model is not None:
                    model.to(self.device)
        except torch.OutOfMemoryError:
            raise AsyncDiffError(
                "out of memory while the rewards are loaded: offload_rewards=true, in an evaluation"
                f" --offload-rewards, keeps one at a time on {self.device}"
            ) from None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the device to others within the block.

        Raises:
            AsyncDiffError: as `place`.
        """
        moves = not self.offload and self.device.type != "cpu"
        for model in self.models.values() if moves else ():
            if model is not None:
                model.to("cpu")
        yield
        if moves:
            self.place()


class RewardGroup(Group):
    """The rewards of a recipe with their weights. They wait on the CPU until they are placed.

    Args:
        weights: per reward a weight, as in `parse_weights`.
        paths: local files in place of the hub's, by reward.
        device: where they score; default CUDA where there is one.
        dtype: default each reward's own.
        offload: keep the models on the CPU, and on the device a copy of the one that scores. There
            is nothing to copy where the device is the CPU.
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
        self.weights, self.keep = parse_weights(weights), Path(keep)
        self.paths = dict(paths or {})
        self.device = resolve_device(device, torch.float32)[0]
        self.offload = offload and self.device.type != "cpu"
        self.rewards = {
            name: read_reward(name, self.paths.get(name)).to(dtype=self._dtype(name, dtype))
            for name in self.weights
        }

    def _dtype(self, name: str, dtype: torch.dtype | str | None) -> torch.dtype:
        return resolve_device(self.device, dtype or entry(name).dtype)[1]

    @property
    def models(self) -> dict[str, nn.Module | None]:
        return {name: reward.model for name, reward in self.rewards.items()}

    def ran_with(self) -> dict[str, dict[str, Any]]:
        """What each reward scores with, as JSON values, as `ran_with` tells it."""
        return {
            name: ran_with(reward, self.paths.get(name)) for name, reward in self.rewards.items()
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
            try:
                with lent(reward.model, self.device):
                    scores[name] = reward.score(images, prompts)
            except BadScoreError as error:
                kept = _kept(images[error.index], self.keep, f"{name}-image{error.index}")
                raise AsyncDiffError(f"{error}, which is kept as {kept}") from None
        return scores

    def composite(self, scores: Mapping[str, Tensor]) -> Tensor:
        """R of one group of images of one prompt, fp64 [N] (Eq. 16)."""
        return composite(scores, self.weights)


def ran_with(reward: Reward, path: str | Path | None = None) -> dict[str, Any]:
    """The revision and dtype of a reward, and `local_weights` where it has such, as JSON values.

    Args:
        path: where its weights are from, as of `load_reward`.
    """
    weights = local_weights(reward.name, path)
    own = {"revision": reward.revision, "dtype": dtype_name(reward.dtype)}
    return own if weights is None else {**own, "weights": weights}


def _kept(image: Image.Image, directory: Path, prefix: str) -> str:
    """A new file of an image, where it can be looked at."""
    path = unused(directory / f"{prefix}.png", lambda path: not path.exists())
    write_atomically(path, lambda file: image.save(file, format="PNG"))
    return str(path)


def tensors_of(model: nn.Module | None) -> list[Tensor]:
    """The parameters and buffers of a model; none of a formula."""
    return [] if model is None else [*model.parameters(), *model.buffers()]


def pin(model: nn.Module | None) -> None:
    """Put a model into memory that a GPU copies from by itself, as far as there is such memory."""
    with suppress(RuntimeError):  # what CUDA says if it cannot have so much
        for tensor in tensors_of(model):
            tensor.data = tensor.data.pin_memory()


@contextmanager
def lent(model: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Have a model on a device within the block: a copy of what is elsewhere, which is not copied
    back."""
    parts = [] if model is None else list(model.modules())
    stores: list[dict[str, Any]] = []
    for part in parts:
        stores += (part._parameters, part._buffers)
    own = [{name: t for name, t in store.items() if t is not None} for store in stores]
    try:
        for store, tensors in zip(stores, own, strict=True):
            for name, tensor in tensors.items():
                store[name] = tensor.to(device, non_blocking=True)
        yield
    finally:
        for store, tensors in zip(stores, own, strict=True):
            store.update(tensors)
