"""An embedded reward with other weights than those that ship."""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from asyncdiff_cli.engine.assets import ASSETS


def quality_with(path: Path, shift: float) -> Path:
    """A directory of mini_quality whose scores are lower by so much."""
    shutil.copytree(ASSETS / "mini_quality", path, dirs_exist_ok=True)
    weights = load_file(path / "model.safetensors")
    save_file({**weights, "shift": weights["shift"] + shift}, path / "model.safetensors")
    return path
