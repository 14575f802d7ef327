"""What a machine without a network needs: the code, without the old weights, and the sprites."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.pack import download
from mini.training import is_complete

ROOT = Path(__file__).parents[1]
CODE = ("mini", "asyncdiff_cli", "recipes")


def gather(
    sprites: Path, target: Path, python: str | None = None, stages: Sequence[str] = ()
) -> int:
    """Copy the code and the sprites into ``target``, anew, and say how many bytes that is.

    There ``run.sh`` runs all stages.

    Args:
        sprites: the packed sprites, in the working directory.
        python: version of the machine's Python, such as 3.12, if it has torch and transformers but
            lacks diffusers and pydantic, whose wheels are put beside; default none.
        stages: what the working directory has complete; their checkpoints travel too, and
            leave their time to the others.

    Raises:
        ValueError: a stage is not complete.
    """
    for stage in stages:
        if not is_complete(sprites.parent / stage):
            raise ValueError(f"{stage} is not complete in {sprites.parent}")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in CODE:
        ignored = shutil.ignore_patterns("__pycache__", "assets")
        shutil.copytree(ROOT / name, partial / name, ignore=ignored)
    shutil.copy(partial / "mini" / "run.sh", partial)
    (partial / "work").mkdir()
    for path in (sprites, sprites.with_suffix(".json")):
        shutil.copy(path, partial / "work" / path.name)
    for stage in stages:
        unused = shutil.ignore_patterns("stable.pt", "*.partial")
        shutil.copytree(sprites.parent / stage, partial / "work" / stage, ignore=unused)
    if stages:
        for tokenizer in sprites.parent.glob("tokenizer-*"):
            shutil.copytree(tokenizer, partial / "work" / tokenizer.name)
    if python is not None:
        download(partial / "wheels", python)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
