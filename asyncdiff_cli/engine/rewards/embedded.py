"""What the rewards that come with the package share: a directory of files in its assets."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from typing_extensions import Self

from asyncdiff_cli.engine.assets import ASSETS
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.rewards.base import Reward

WEIGHTS_FILE = "model.safetensors"


def directory_of(name: str, path: str | Path | None = None) -> Path:
    """Where the files of an embedded reward are: in the package, unless a path is given."""
    return ASSETS / name if path is None else Path(path)


class EmbeddedReward(Reward):
    """A reward of mini's world, which lies in `ASSETS` under its name."""

    files: ClassVar[tuple[str, ...]]
    """What its directory holds."""
    stage: ClassVar[str]
    """The stage of `python -m mini` that trains it."""

    @classmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        """The shipped weights, or those in the directory `path`, in fp32 on the CPU.

        Raises:
            InputError: for a revision, which an embedded model does not have, or as
                `from_directory`.
            AsyncDiffError: as `from_directory`.
        """
        if revision is not None:
            raise InputError(f"{cls.name} is a part of the package and has no revisions")
        return cls.from_directory(directory_of(cls.name, path))

    @classmethod
    def from_directory(cls, path: str | Path) -> Self:
        """Read its files.

        Raises:
            InputError: if the package does not have them.
            AsyncDiffError: if one is missing or damaged, or they do not belong together.
        """
        directory = Path(path)
        if not directory.exists() and directory.parent == ASSETS:
            raise InputError(
                f"{cls.name} is not in this package: train it with `python -m mini {cls.stage}` and"
                f" `export`, and pass --reward-path {cls.name}=DIR"
            )
        if missing := [name for name in cls.files if not (directory / name).is_file()]:
            raise AsyncDiffError(
                f"{directory} lacks {', '.join(missing)} of {cls.name}: reinstall asyncdiff, or"
                f" train it with `python -m mini {cls.stage}`"
            )
        return cls._read(directory)

    @classmethod
    @abstractmethod
    def _read(cls, directory: Path) -> Self:
        """The reward of a directory that has all of its files."""
