"""Rewards: what scores an image, by name. A reward's module is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncdiff_cli.engine.assets import ASSETS
from asyncdiff_cli.engine.checks import check_choice, unknown
from asyncdiff_cli.engine.dtypes import dtype_name
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import existing, expanded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import torch
    from PIL import Image
    from torch import Tensor

    from asyncdiff_cli.engine.rewards.base import Reward


class RewardEntry(NamedTuple):
    """What is known about a reward before it is imported."""

    module: str
    """The module of its class, beside this one or with all its packages."""
    class_name: str
    higher_is_better: bool = True
    dtype: str = "float32"
    """What it runs in unless asked otherwise, on any device."""


ENTRIES = {
    "image_reward": RewardEntry("image_reward", "ImageReward"),
    "hpsv2": RewardEntry("hpsv2", "HPSv2"),
    "hpsv2.1": RewardEntry("hpsv2", "HPSv21"),
    "clip": RewardEntry("clip", "CLIPScore"),
    "pickscore": RewardEntry("pickscore", "PickScore"),
    "mini_clip": RewardEntry("mini_clip", "MiniClip"),
    "mini_quality": RewardEntry("mini_quality", "MiniQuality"),
    "mini_judge": RewardEntry("mini_judge", "MiniJudge"),
    "noise": RewardEntry("noise", "Noise"),
    "sharpness": RewardEntry("sharpness", "Sharpness", higher_is_better=False),
}
PUBLISHED = ("image_reward", "hpsv2", "hpsv2.1", "clip", "pickscore")
"""Rewards that are downloaded, or read from the file of a `--reward-path`."""
EMBEDDED = ("mini_clip", "mini_quality", "mini_judge")
"""Rewards of mini's world, in the package's assets or the directory of a `--reward-path`."""
AVAILABLE = tuple(name for name in ENTRIES if name not in EMBEDDED or (ASSETS / name).is_dir())
"""What there is without a `--reward-path`: weights may be trained that the package lacks."""
DEFAULT = ("mini_clip", "mini_quality", "noise", "sharpness")
"""What is scored with unless asked otherwise: nothing that is downloaded."""
GUARD = "noise"
"""The reward that is always reported: a gain that comes with a fall of it was bought with noise."""
COMPOSITE: Final = "composite"
"""What a table calls the weighted mean of several rewards (Eq. 16), which is none of them."""


def checked(name: str) -> str:
    """The name of a reward, which may lack its weights.

    Raises:
        InputError: for an unknown name, with the nearest known one.
    """
    if name not in ENTRIES:
        raise InputError(unknown("reward", name, AVAILABLE))
    return name


def entry(name: str) -> RewardEntry:
    """What is known about a reward.

    Raises:
        InputError: as `checked`.
    """
    return ENTRIES[checked(name)]


def check_prompts(names: Iterable[str], prompts: Collection[str]) -> None:
    """Every reward can read every prompt.

    Raises:
        InputError: with the first prompt that one of them cannot, and how many there are.
    """
    for name in names:
        if refusals := list(filter(None, map(reward_class(name).refuses, prompts))):
            raise InputError(
                f"{refusals[0]} ({len(refusals):,} of {len(prompts):,} prompts): leave them out, or"
                f" the reward {name}"
            )


def reward_class(name: str) -> type[Reward]:
    """The class of a reward.

    Raises:
        InputError: as `entry`.
    """
    own = entry(name)
    module = own.module if "." in own.module else f"{__name__}.{own.module}"
    return getattr(importlib.import_module(module), own.class_name)


def load_reward(
    name: str,
    path: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
) -> Reward:
    """A reward that is ready to score.

    Args:
        path: a local file of the published checkpoint in place of the hub's, or a directory in
            place of an embedded one.
        device: default CUDA where there is one.
        dtype: default the reward's own, which is fp32 wherever fp16 would blur its scores.
        revision: branch, tag or commit of its repository.

    Raises:
        InputError: for an unknown name, device or dtype, a missing file, or a path for a reward
            that reads none.
        AsyncDiffError: if the checkpoint cannot be fetched, or is damaged.

    Example:
        >>> load_reward("mini_clip", device="cpu").dtype
        torch.float32
    """
    from asyncdiff_cli.engine.devices import resolve_device

    device, dtype = resolve_device(device, dtype or entry(name).dtype)
    return read_reward(name, path, revision).to(device, dtype)


def read_reward(name: str, path: str | Path | None = None, revision: str | None = None) -> Reward:
    """Load as `load_reward` does, in fp32 on the CPU.

    Raises:
        InputError, AsyncDiffError: as `load_reward`.
    """
    if name in PUBLISHED:
        return reward_class(name).load(None if path is None else expanded(path), revision)
    if name in EMBEDDED and revision is None:
        return reward_class(name).load(None if path is None else expanded(path))
    if path is not None or revision is not None:
        raise InputError(f"{name} is a part of this package: it takes no file or revision")
    return reward_class(name).load()


def local_weights(name: str, path: str | Path | None = None) -> str | None:
    """What tells the weights of a reward from others, 16 hex digits of a file's SHA-256.

    None for a formula, what the hub has, and a file that is not there. Nothing is loaded.
    """
    from asyncdiff_cli.engine.downloads import file_sha256
    from asyncdiff_cli.engine.rewards.embedded import WEIGHTS_FILE, directory_of  # imports torch

    if name in EMBEDDED:
        file = directory_of(name, None if path is None else expanded(path)) / WEIGHTS_FILE
    elif path is not None:
        file = expanded(path)
    else:
        return None
    return file_sha256(file)[:16] if file.is_file() else None


def parse_rewards(text: str | None) -> list[str]:
    """Names from `a,b`; `DEFAULT` for None.

    Raises:
        InputError: for an unknown name, or one that is named twice.
    """
    names = list(DEFAULT) if text is None else parse_names(text)
    for name in names:
        checked(name)
    if len(set(names)) < len(names):
        raise InputError(f"--rewards names {max(names, key=names.count)} twice")
    return names


def parse_names(text: str) -> list[str]:
    """Names from `a,b`."""
    return [name.strip() for name in text.split(",")]


def parse_reward_paths(items: Sequence[str], names: Sequence[str]) -> dict[str, Path]:
    """`NAME=FILE`, for rewards that are asked for.

    Raises:
        InputError: for another form, a reward that is not asked for or is there twice, or a
            missing file.
    """
    paths = {}
    for item in items:
        name, _, file = item.partition("=")
        if not file:
            raise InputError(f"--reward-path is NAME=FILE, not {item!r}")
        check_choice("reward", name, names)
        if name in paths:
            raise InputError(f"--reward-path names {name} twice")
        paths[name] = existing(file, "file")
    return paths


@lru_cache
def _loaded(name: str, path: str | None, device: str | None, dtype: str | None) -> Reward:
    return load_reward(name, path, device, dtype)


def score(
    reward: str,
    images: Image.Image | Sequence[Image.Image],
    prompts: str | Sequence[str] | None = None,
    *,
    path: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Tensor:
    """Score images, each for its own prompt: fp32 [N] on the CPU.

    A model is loaded once per process. Arguments and errors are those of `load_reward` and
    `Reward.score`.

    Example:
        >>> from PIL import Image
        >>> score("sharpness", [Image.new("RGB", (64, 64), "red")] * 2)
        tensor([0., 0.])
    """
    names = (None if value is None else dtype_name(value) for value in
             (path, device, dtype))  # fmt: skip
    return _loaded(reward, *names).score(images, prompts)
