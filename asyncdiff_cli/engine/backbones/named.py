"""What a file names, and a user has not: used where it is on this machine, never downloaded."""

from __future__ import annotations

from asyncdiff_cli.engine.backbones import weights
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.checks import may_be_repository
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.hub import is_cached


def check_model(where: object, named: ModelChoice, given: ModelChoice) -> None:
    """The model that a file names is on this machine, as far as the user has not named it too.

    Args:
        where: the file.
        named: what is to be loaded.
        given: what the user has asked for.

    Raises:
        InputError: saying what would be downloaded, and how to allow it.
    """
    whole = named.model_path is not None and named.model_path.is_dir()
    repo = None if given.backbone is not None or whole else _repository(named.name)
    if repo is not None and weights.cached(repo, named.revision) is None:
        raise InputError(
            f"{where} names the model {repo}, which is not on this machine: to download it,"
            f" repeat --backbone {named.name}, or give --model-path DIR"
            if may_be_repository(repo)
            else f"{where} names its model, and there is no directory {repo}: put it back there, or"
            " give --model-path DIR"
        )
    for text in () if given.lora else named.lora:
        adapter = LoRA.parse(text)
        if not adapter.path.exists() and not is_cached(adapter.source):
            raise InputError(
                f"{where} names the LoRA {adapter.source}, which is not on this machine: repeat"
                f" --lora {text} to download it, or give the file's place"
                if may_be_repository(adapter.source)
                else f"{where} names a LoRA, and there is no file {adapter.source}: put it back"
                " there, or draw a picture again with --lora FILE"
            )


def _repository(name: str) -> str | None:
    """The repository of a backbone, unless it is on the disk by itself."""
    entry = REGISTRY.get(name)
    if entry is not None:
        return entry.repo
    return None if expanded(name).is_dir() else name
