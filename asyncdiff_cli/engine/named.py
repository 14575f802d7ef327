"""What a file names, and a user has not: used where it is on this machine, and never downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from asyncdiff_cli.engine import weights
from asyncdiff_cli.engine.checks import may_be_repository
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.limits import MAX_BATCH
from asyncdiff_cli.engine.lora import LoRA
from asyncdiff_cli.engine.reading import Read, parse_json
from asyncdiff_cli.engine.registry import REGISTRY
from asyncdiff_cli.engine.requests import ModelChoice


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
        if not adapter.path.exists() and not _has(adapter.source):
            raise InputError(
                f"{where} names the LoRA {adapter.source}, which is not on this machine: repeat"
                f" --lora {text} to download it, or give the file's place"
                if may_be_repository(adapter.source)
                else f"{where} names a LoRA, and there is no file {adapter.source}: put it back"
                " there, or draw a picture again with --lora FILE"
            )


class RecordedPolicy(Read):
    """The settings of a policy, of whichever it is, in a picture's record."""

    name: str
    source: str | None = None
    """Of the module."""
    fingerprint: str | None = None
    deviation: float | list[float] = 0.0
    deviations: list[float] = Field([])
    bound: float = 1.0
    amount: float = 0.0
    scale: float = 1.0
    window: float = 0.0
    policies: list[RecordedPolicy] = Field([])
    """With the next two, those of a batch: so many images by each."""
    gammas: list[float] = Field([])
    images: list[Annotated[int, Field(ge=1)]] = Field([])

    @model_validator(mode="after")
    def _check_images(self) -> RecordedPolicy:
        if sum(self.images) > MAX_BATCH:
            raise ValueError(f"images: a batch has at most {MAX_BATCH:,}")
        return self


def check_policy(where: object, policy: Mapping[str, Any]) -> None:
    """A recorded policy is of the shape that was written, and its modules are on this machine.

    Raises:
        InputError: naming the setting, what was expected and what is there; or saying what would
            be downloaded, and how to allow it.
    """
    found = parse_json(json.dumps(policy), RecordedPolicy, f"the policy in {where}")
    _check_modules(where, found)


def _check_modules(where: object, policy: RecordedPolicy) -> None:
    for own in policy.policies:
        _check_modules(where, own)
    source = policy.source
    if source is None or source.partition(":")[0] in REGISTRY:
        return
    if not expanded(source).exists() and not _has(source):
        raise InputError(
            f"{where} names the module {source}, which is not on this machine: give --tpm with its"
            f" place{', or repeat it there to download it' if may_be_repository(source) else ''}"
        )


def _repository(name: str) -> str | None:
    """The repository of a backbone, unless it is on the disk by itself."""
    entry = REGISTRY.get(name)
    if entry is not None:
        return entry.repo
    return None if expanded(name).is_dir() else name


def _has(repo: str) -> bool:
    """Whether the cache of the hub has a repository."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(repo, local_files_only=True)
    except Exception:  # for what is no repository's name it raises errors of several classes
        return False
    return True
