"""Whether a model is where it is said to be, told by names and by the disk."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli.engine.backbones.registry import PICKLES, REGISTRY, SINGLE_FILES
from asyncdiff_cli.engine.checks import may_be_repository, unknown
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded


def check_backbone(name: str) -> None:
    """A backbone is known by name, or is a directory of one, or may be a repository.

    Raises:
        InputError: for what is none of these.
    """
    path = expanded(name)
    if name in REGISTRY:
        return
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise InputError(f"{path} is not a diffusers pipeline: it has no model_index.json")
    elif path.is_file():
        raise InputError(
            f"{name} is a file and no backbone: give it as --model-path, beside the --backbone that"
            " all else comes from"
        )
    elif "/" not in name:
        raise InputError(unknown("backbone", name, REGISTRY) + ", or a directory or repository")
    elif not may_be_repository(name):
        raise InputError(f"there is no directory {name}")


def check_model_path(path: Path) -> None:
    """What takes the place of a model's own weights is there, and of a kind that is read.

    Raises:
        InputError: for what is missing, a directory without a pipeline, or a file of another kind.
    """
    files = f"single files end in {', '.join(SINGLE_FILES)}"
    wanted = f"give a pipeline's directory, or a transformer's file ({files})"
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise InputError(
                f"{path} is not a diffusers pipeline: it has no model_index.json; {wanted}"
            )
    elif not path.exists():
        if path.suffix in (*SINGLE_FILES, *PICKLES):
            raise InputError(f"there is no file {path}: {wanted}")
        raise InputError(
            f"{path} is not a diffusers pipeline: there is no such directory; {wanted}"
        )
    elif path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can hold code and is not read: convert it; {files}"
        )
    elif path.suffix not in SINGLE_FILES or not path.is_file():
        raise InputError(f"{path} is not a model: {wanted}")
