"""The settings.json of a store: what all its rows share, so that they can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.store_rows import COLUMNS
from asyncdiff_cli.engine.reading import Read, parse_json, read_text

STORE_FORMAT = 1
SETTINGS = "settings.json"
HASHED = {"backbone": "fingerprint", "lora": "fingerprint", "dataset": "prompts_sha256"}
"""Settings that name files, and those that hash what is in them."""


class Versioned(Read):
    """What every version of settings.json has."""

    format: int


def _column(name: str) -> str:
    if name in COLUMNS:
        raise ValueError(f"no reward is called {name}")
    return name


Scalar = str | float | bool | None
Value = Scalar | list[Scalar]


class SetMetricSettings(Read):
    """What a set metric compares pictures with, and by which weights."""

    weights: str | None
    reference: str
    """The fingerprint of its pictures."""
    reference_images: int


class StoreSettings(Versioned):
    """A settings.json: what all rows share."""

    __pydantic_extra__: dict[str, Value]

    backbone: str
    rewards: dict[Annotated[str, AfterValidator(_column)], dict[str, Scalar]]
    set_metrics: dict[str, SetMetricSettings] = Field({})


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of the store in a directory. Raises: as `Store`."""
    file = path / SETTINGS
    try:
        text = read_text(file)
    except InputError as error:
        if file.exists():
            raise  # for what cannot be read, another evaluation is no help
        raise InputError(_no_evaluation(path, error)) from None
    try:
        version = parse_json(text, Versioned, SETTINGS).format
        if version == STORE_FORMAT:
            parse_json(text, StoreSettings, SETTINGS)
    except InputError as error:
        raise InputError(_no_evaluation(path, error)) from None
    if version != STORE_FORMAT:
        raise InputError(
            f"{path} has format {version}, and this version reads {STORE_FORMAT}: evaluate again"
        )
    return json.loads(text)


def _no_evaluation(path: Path, reason: InputError) -> str:
    return f"{path} holds no evaluation: `asyncdiff eval --out {path}` makes one ({reason})"


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What two stores' settings disagree in, with both values; "" for nothing.

    Files of the same bytes are the same from wherever they are named.
    """
    return ", ".join(
        f"{name} ({before.get(name)}, now {after.get(name)})"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name) and not _elsewhere(name, before, after)
    )


def _elsewhere(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a setting names another place of what is the same by its hash."""
    hashed = HASHED.get(name)
    if hashed is None or before.get(hashed) is None or before.get(hashed) != after.get(hashed):
        return False
    return name != "lora" or _scales(before) == _scales(after)


def _scales(settings: Mapping[str, Any]) -> list[float]:
    texts = settings.get("lora")
    return [LoRA.parse(str(text)).scale for text in texts] if isinstance(texts, list) else []
