"""Whether a model is where it is said to be, told by names and by the disk."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from asyncdiff_cli.engine.backbones.registry import (
    GGUF,
    MINI_DIRECTORY,
    PICKLES,
    REGISTRY,
    SINGLE_FILES,
    BackboneEntry,
)
from asyncdiff_cli.engine.backbones.single_files import check_is_model
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


def find_pipeline(
    name: str, model_path: str | Path | None
) -> tuple[BackboneEntry | None, str, Path | None]:
    """The registry's entry if there is one, what to load, and its directory if it is one."""
    entry = REGISTRY.get(name)
    if model_path is not None:
        directory = expanded(model_path)
        check_model_path(directory)
    elif name == "mini":
        directory = MINI_DIRECTORY
    else:
        check_backbone(name)
        if entry is not None and entry.repo is not None:
            return entry, entry.repo, None
        directory = expanded(name)
        if not directory.is_dir():
            return None, name, None
    return entry, str(directory), directory


def find_checkpoint(model_path: str | Path | None, quantize: str | None) -> Path | None:
    """The path if it is that of a single file, and None for a directory.

    Raises:
        InputError: for what is not there or not a transformer's weights, or GGUF, which is
            quantized, to be quantized again or without its package.
    """
    path = None if model_path is None else expanded(model_path)
    if path is None or path.is_dir():
        return None
    check_model_path(path)
    if path.suffix == GGUF and quantize is not None:
        raise InputError(f"{path} is quantized already: leave out --quantize {quantize}")
    if quantize == "nf4":
        raise InputError(
            f"--quantize nf4 cannot read {path}, a single file: use int8 or fp8, or a directory"
        )
    if path.suffix == GGUF and find_spec("gguf") is None:
        raise InputError(f"{path} needs gguf: pip install gguf")
    check_is_model(path)
    return path


def check_revision(directory: Path | None, revision: str | None) -> None:
    """A revision is of a repository, and not of a directory.

    Raises:
        InputError: for one of a directory.
    """
    if directory is not None and revision is not None:
        raise InputError(f"a revision belongs to a repository, and {directory} is a directory")
