"""The model that draws, where and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.backbones.presence import check_backbone, check_model_path
from asyncdiff_cli.engine.backbones.registry import (
    GRIDS,
    OFFLOADS,
    QUANTIZATIONS,
    SCHEDULER_CLASSES,
)
from asyncdiff_cli.engine.checks import unknown
from asyncdiff_cli.engine.dtypes import DTYPES
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded

DEFAULT_BACKBONE = "mini"


NEUTRAL: dict[str, Any] = {
    "scheduler": "model",
    "grid": "model",
    "quantize": "none",
    "offload": "none",
    "lora": ("none",),
    "compile": False,
    "attention": "none",
}
"""What is given for each option of a model that can be switched off, to have it off: over what a
picture was drawn with, or what a recipe says."""


@dataclass(frozen=True)
class ModelChoice:
    """The model that draws, where and how: arguments of `load_backbone`, None for its default."""

    backbone: str | None = None
    revision: str | None = None
    model_path: Path | None = None
    scheduler: str | None = None
    grid: str | None = None
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    offload: str | None = None
    lora: tuple[str, ...] = ()
    compile: bool = False
    attention: str | None = None
    off: frozenset[str] = field(default=frozenset(), kw_only=True)
    """The names of those that are at their default because that was asked for."""

    @classmethod
    def parse(cls, **given: Any) -> ModelChoice:
        """What is typed, with the words of `NEUTRAL`; None is what was not given."""
        off = frozenset(name for name, word in NEUTRAL.items() if given.get(name) == word)
        own = {k: v for k, v in given.items() if k not in off and v is not None}
        if "model_path" in own:
            own["model_path"] = expanded(own["model_path"])
        return cls(**own, off=off)

    @classmethod
    def options(cls) -> list[str]:
        """The names of the arguments, without `off`."""
        return [each.name for each in fields(cls) if each.name != "off"]

    @property
    def name(self) -> str:
        """The backbone's name."""
        return self.backbone or DEFAULT_BACKBONE

    def to_dict(self) -> dict[str, Any]:
        """Every option as a JSON value."""
        values = {name: getattr(self, name) for name in self.options()}
        path = None if self.model_path is None else str(self.model_path)
        return {**values, "model_path": path, "lora": list(self.lora)}

    def check(self) -> None:
        """Every name is known and every local file there, as far as the disk and names tell.

        Raises:
            InputError: for what is not.
        """
        known: dict[str, tuple[str, str | None, Iterable[str]]] = {
            "solver": ("scheduler", self.scheduler, ("model", *SCHEDULER_CLASSES)),
            "grid": ("grid", self.grid, GRIDS),
            "dtype": ("dtype", self.dtype, DTYPES),
            "quantize": ("quantization", self.quantize, ("none", *QUANTIZATIONS)),
            "offload": ("offload", self.offload, OFFLOADS),
        }
        for option, (kind, value, names) in known.items():
            if value is not None and value not in names:
                raise InputError(f"--{option}: {unknown(kind, value, names)}")
        for text in self.lora:
            LoRA.parse(text).check()
        if self.model_path is not None:
            check_model_path(self.model_path)
        if self.model_path is None or self.model_path.is_file():
            check_backbone(self.name)
