"""What a machine without a network needs: the code, without the old weights, and the sprites."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.gpu.pack import download

ROOT = Path(__file__).parents[1]
CODE = ("mini", "asyncdiff_cli", "recipes")


def gather(sprites: Path, target: Path, python: str | None = None) -> int:
    """Copy the code and the sprites into ``target``, anew, and say how many bytes that is.

    There ``run.sh`` runs all stages.

    Args:
        python: version of the machine's Python, such as 3.12, if it has torch and transformers but
            lacks diffusers and pydantic, whose wheels are put beside; default none.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in CODE:
        ignored = shutil.ignore_patterns("__pycache__", "assets")
        shutil.copytree(ROOT / name, partial / name, ignore=ignored)
    shutil.copy(partial / "mini" / "run.sh", partial)
    (partial / "work").mkdir()
    for path in (sprites, sprites.with_suffix(".json")):
        shutil.copy(path, partial / "work" / path.name)
    if python is not None:
        download(partial / "wheels", python)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
