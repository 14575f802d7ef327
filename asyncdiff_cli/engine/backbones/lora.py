"""Low-rank adapters as they are written on a command line: `SOURCE[@SCALE]`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.registry import PICKLES, SINGLE_FILES
from asyncdiff_cli.engine.backbones.single_files import shapes
from asyncdiff_cli.engine.checks import check_range, may_be_repository
from asyncdiff_cli.engine.errors import AsyncDiffWarning, InputError
from asyncdiff_cli.engine.files import expanded, listed
from asyncdiff_cli.engine.text import first_few

MAX_SCALE = 10.0
"""Scales are usually in [0, 2], and those of sliders in [-5, 5]; beyond this it is a typo."""
ADAPTER_SUFFIX = ".safetensors"
"""What diffusers reads adapters under."""
LORA_FILES = (*SINGLE_FILES, *PICKLES)
"""How files of weights end, and no repository does."""

ADAPTER_WEIGHT = re.compile(r"\.(?:lora\.|lora_|alpha$)")
"""What follows a layer's name in the name of an adapter's weight."""
HALF = re.compile(r"(.+?)\.lora(?:_linear_layer)?[._](?:(A|down)|B|up)\.weight$")
"""A weight of a pair: its layer, and whether it is the first one, whose rows are the rank."""


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
        """Check that it is on the disk or may be a repository; nothing is downloaded to find out.

        Raises:
            InputError: for neither, a file of another kind, or a directory as `local`.
        """
        if self.path.is_dir():
            self._only(self.path)
            return
        if self.path.exists():
            if self.path.suffix != ADAPTER_SUFFIX:
                raise InputError(f"--lora {self.source} is no {ADAPTER_SUFFIX} file")
            _check_readable(self.path)
            return
        if self.path.suffix.lower() in LORA_FILES or not may_be_repository(self.source):
            raise InputError(f"there is no LoRA {self.source}")

    def absolute(self) -> str:
        """The option as it is written for use from any directory."""
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
        return self._only(path if path.is_dir() else self._download())

    def _only(self, directory: Path) -> Path:
        """The one file of a directory."""
        files = listed(directory, f"**/*{ADAPTER_SUFFIX}")
        if len(files) != 1:
            names = ", ".join(file.relative_to(directory).as_posix() for file in files) or "none"
            raise InputError(f"{self.source} is to hold one LoRA, and holds {names}: give a file")
        _check_readable(files[0])
        return files[0]

    def check_fits(self, pipe: Any, file: Path) -> None:
        """Warn if a part of it belongs to layers that a pipeline does not have.

        Raises:
            InputError: if all of it does, or a layer is of another size or half an adapter.
            What diffusers raises for a file that it cannot read as an adapter.
        """
        found = pipe.lora_state_dict(str(file.parent), weight_name=file.name)
        weights = found[0] if isinstance(found, tuple) else found
        keys = list(weights)
        left = [key for key in keys if not _has_layer(pipe, key)]
        model, count = type(pipe.transformer).__name__, len(keys)
        if len(left) == count:
            raise InputError(
                f"--lora {self.source} was made for another model: none of its {count} weights fits"
                f" the {model}"
            )
        if wrong := _misfits(pipe, weights):
            raise InputError(f"--lora {self.source} does not fit the {model}: {first_few(wrong)}")
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
            return Path(snapshot_download(self.source, allow_patterns=[f"*{ADAPTER_SUFFIX}"]))


def _check_readable(file: Path) -> None:
    """A file of safetensors is whole, as far as its head tells, and holds something.

    Raises:
        InputError: if not.
    """
    if not shapes(file, "LoRA"):
        raise InputError(f"{file} holds no weights: those of a LoRA were expected")


def _has_layer(pipe: Any, key: str) -> bool:
    """Whether a pipeline has the layer that a weight of an adapter belongs to."""
    name = ADAPTER_WEIGHT.split(key)[0] if ADAPTER_WEIGHT.search(key) else key.rpartition(".")[0]
    return _layer(pipe, name) is not None


def _layer(pipe: Any, name: str) -> Any:
    """A layer of a pipeline by the component and the path in it; None if there is none."""
    component, _, path = name.partition(".")
    try:
        return getattr(pipe, component).get_submodule(path)
    except AttributeError:
        return None


def _misfits(pipe: Any, weights: Mapping[str, Any]) -> list[str]:
    """What is wrong with the pairs [rank, inputs] and [outputs, rank] of linear layers."""
    pairs: dict[str, dict[bool, Any]] = {}
    for key, weight in weights.items():
        if half := HALF.match(key):
            pairs.setdefault(half[1], {})[half[2] is not None] = weight
    wrong = []
    for name, pair in pairs.items():
        inputs, outputs = (
            getattr(_layer(pipe, name), side, None) for side in ("in_features", "out_features")
        )
        if inputs is None:  # no linear layer, or none at all
            continue
        if len(pair) < 2:
            wrong.append(f"{name} has no {'lora_B' if True in pair else 'lora_A'}")
            continue
        first, second = (list(pair[half].shape) for half in (True, False))
        rank = first[0] if first else 1
        if not all(weight.is_floating_point() for weight in pair.values()):
            wrong.append(f"the weights of {name} are whole numbers")
        elif (first, second) != ([rank, inputs], [outputs, rank]):
            wrong.append(f"{name} has {first} and {second}, not [r, {inputs}] and [{outputs}, r]")
    return wrong
