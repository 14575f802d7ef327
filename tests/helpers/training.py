"""The smallest training there is: three steps of 16×16 pixels, groups of four, a tiny module."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.rows import Event
from asyncdiff_cli.engine.training.start import open_trainer
from asyncdiff_cli.engine.training.trainer import Trainer

SMALL: dict[str, Any] = {
    "num_inference_steps": 3,
    "rewards": {"noise": 1, "sharpness": 2},
    "iterations": 4,
    "prompts_per_iteration": 1,
    "group_size": 4,
    "noises_per_prompt": None,
    "scale_rewards": "group",
    "start": None,
    "mini_batch_size": 2,
    "epochs": 1,
    "estimator": {"correlation": 0},
    "rollout_batch_size": 16,
    "learning_rate": 1e-3,
    "ema_decay": None,
    "tpm": {
        "width": 16, "layers": 1, "heads": 2, "patch_size": 4, "text_tokens": 2, "global_tokens": 2
    },
    "evaluation": {"every": 2, "prompts": 3},
    "checkpoint": {"every": 1, "keep": 2},
    "samples": {"every": 0},
}  # fmt: skip
"""On top of the recipe mini."""
TIMINGS = ("seconds", "images_per_second", "shares")


def settings(changes: dict[str, Any]) -> list[str]:
    """SMALL and some changes to it as overrides, `KEY=VALUE`."""
    return [f"{name}={json.dumps(value)}" for name, value in {**SMALL, **changes}.items()]


def small_recipe(backbone: Path | str, **changes: Any) -> Recipe:
    return load_recipe("mini", [f"backbone={backbone}", *settings(changes)])


def open_run(path: Path, backbone: Path | str, resume: bool = False, **changes: Any) -> Trainer:
    """A new run, or one that goes on."""
    return open_trainer(small_recipe(backbone, **changes), path, resume, device="cpu")


def trained(path: Path, backbone: Path | str, resume: bool = False, **changes: Any) -> list[Event]:
    """Train to the end; what was told."""
    return list(open_run(path, backbone, resume, **changes).train())


def stop_at(events: Iterator[Event], count: int) -> None:
    """Leave a training as a power cut would: nothing of it runs after so many events."""
    for _ in range(count):
        if next(events, None) is None:
            return


def module_bytes(path: Path) -> bytes:
    return (path / "tpm" / "model.safetensors").read_bytes()


def module_weights(path: Path) -> np.ndarray:
    """All weights of a run's module in one row."""
    weights = load_file(path / "tpm" / "model.safetensors")
    return np.concatenate([weights[name].ravel() for name in sorted(weights)])


def rows(path: Path, timings: bool = False) -> list[dict[str, Any]]:
    """The metrics of a run, without what depends on the machine's mood."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if timings or k not in TIMINGS} for line in lines
    ]


def numbers(value: Any, path: str = "") -> dict[str, float]:
    """The numbers of nested JSON values by their place, to compare approximately."""
    if isinstance(value, int | float):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, each in items for k, v in numbers(each, f"{path}/{key}").items()}


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Two nested JSON values have the same places, with about the same numbers."""
    assert numbers(ours) == pytest.approx(numbers(theirs), rel=tolerance, abs=tolerance)


def checkpoints(path: Path) -> list[int]:
    """The iterations that a run can go on from."""
    return sorted(int(file.stem) for file in (path / "checkpoints").glob("[0-9]*.safetensors"))


def checkpoint_bytes(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / "checkpoints").iterdir()}


def command(*arguments: Any) -> list[str]:
    """`asyncdiff` as a process of its own."""
    return [sys.executable, "-m", "asyncdiff_cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread, so that sums have an order, and no debugging."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "ASYNCDIFF_DEBUG": ""}
