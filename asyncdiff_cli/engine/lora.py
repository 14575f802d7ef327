"""Low-rank adapters as they are written on a command line: `SOURCE[@SCALE]`."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.checks import check_range, may_be_repository
from asyncdiff_cli.engine.errors import AsyncDiffWarning, InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.registry import PICKLES, SAFETENSORS, SINGLE_FILES

MAX_SCALE = 10.0
"""Scales are usually in [0, 2], and those of sliders in [-5, 5]; beyond this it is a typo."""
FILES = (*SINGLE_FILES, *PICKLES)
"""How files of weights end, and no repository does."""

WEIGHT = re.compile(r"\.(?:lora\.|lora_|alpha$)")
"""What follows a layer's name in the name of an adapter's weight."""


@dataclass(frozen=True)
class LoRA:
    """A low-rank adapter: a file, directory or hub repository, and what it is multiplied by."""

    source: str
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> LoRA:
        """Read `SOURCE[@SCALE]`; the path of what is there may hold an @ of its own.

        Raises:
            InputError: for a scale that is not a number in [-10, 10], or no source.
        """
        source, at, scale = text.rpartition("@")
        if not at or expanded(text).exists():
            source, scale = text, "1"
        try:
            number = float(scale)
        except ValueError:
            raise InputError(f"a LoRA is SOURCE or SOURCE@SCALE, not {text!r}") from None
        if not source.strip():
            raise InputError(f"a LoRA is SOURCE or SOURCE@SCALE, and {text!r} has no source")
        check_range(f"the scale of --lora {source}:", number, -MAX_SCALE, MAX_SCALE)
        return cls(source, number)

    @property
    def path(self) -> Path:
        """Where it is, unless it is a repository."""
        return expanded(self.source)

    def check(self) -> None:
        """It is on the disk, or may be a repository; nothing is downloaded to find out.

        Raises:
            InputError: for neither, or a file of another kind.
        """
        if self.path.is_dir():
            return
        if self.path.exists():
            if self.path.suffix.lower() not in SAFETENSORS:
                raise InputError(f"--lora {self.source} is no .safetensors file")
            return
        if self.path.suffix.lower() in FILES or not may_be_repository(self.source):
            raise InputError(f"there is no LoRA {self.source}")

    def absolute(self) -> str:
        """As it is written for use from any directory."""
        source = str(self.path.absolute()) if self.path.exists() else self.source
        return source if self.scale == 1 else f"{source}@{self.scale:g}"

    def local(self) -> Path:
        """Its file, downloaded if it is on the hub.

        Raises:
            InputError: if there is none, or several to choose from.
            AsyncDiffError: if it cannot be downloaded.
        """
        self.check()
        path = self.path
        if path.is_file():
            return path
        if not path.is_dir():
            path = self._download()
        files = sorted(path.rglob("*.safetensors"))
        if len(files) != 1:
            names = ", ".join(file.relative_to(path).as_posix() for file in files) or "none"
            raise InputError(f"{self.source} is to hold one LoRA, and holds {names}: give a file")
        return files[0]

    def check_fits(self, pipe: Any, file: Path) -> None:
        """Warn if a part of it belongs to layers that a pipeline does not have.

        Raises:
            InputError: if all of it does.
            What diffusers raises for a file that it cannot read as an adapter.
        """
        weights = pipe.lora_state_dict(str(file.parent), weight_name=file.name)
        keys = list(weights[0] if isinstance(weights, tuple) else weights)
        left = [key for key in keys if not _has_layer(pipe, key)]
        model, count = type(pipe.transformer).__name__, len(keys)
        if len(left) == count:
            raise InputError(
                f"--lora {self.source} was made for another model: none of its {count} weights fits"
                f" the {model}"
            )
        if left:
            warnings.warn(
                f"--lora {self.source}: {len(left)} of its {count} weights do not fit the {model}"
                f" and are left out, such as {left[0]}",
                AsyncDiffWarning,
                stacklevel=2,
            )

    def _download(self) -> Path:
        from huggingface_hub import snapshot_download

        from asyncdiff_cli.engine.hub import hub_errors

        lacking = "holds no LoRA in safetensors"
        with hub_errors(self.source, "--lora FILE", "without --lora none is needed", lacking):
            return Path(snapshot_download(self.source, allow_patterns=["*.safetensors"]))


def _has_layer(pipe: Any, key: str) -> bool:
    """Whether a pipeline has the layer that a weight of an adapter belongs to."""
    component, _, path = key.partition(".")
    layer = WEIGHT.split(path)[0] if WEIGHT.search(path) else path.rpartition(".")[0]
    try:
        getattr(pipe, component).get_submodule(layer)
    except AttributeError:
        return False
    return True
