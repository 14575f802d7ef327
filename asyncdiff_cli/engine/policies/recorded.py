"""A policy as a picture's record has it; nothing that it names is downloaded."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any

from pydantic import Field, model_validator

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.hub import is_cached
from asyncdiff_cli.engine.limits import MAX_BATCH
from asyncdiff_cli.engine.policies.modules import shipped
from asyncdiff_cli.engine.policies.table import POLICIES
from asyncdiff_cli.engine.reading import Read, parse_json
from asyncdiff_cli.engine.repository import Repository


def member_of(images: Sequence[int], index: int) -> int:
    """Which policy of a batch drew its image at ``index``, where each drew so many ``images``."""
    return bisect_right([*accumulate(images)], index)


class RecordedPolicy(Read):
    """The settings of a policy, of whichever it is, in a picture's record."""

    name: str
    source: str | None = None
    """The place of the module, or where the file of a schedule came from."""
    fingerprint: str | None = None
    deviation: float | list[float] = 0.0
    deviations: list[float] = Field([])
    bound: float = 1.0
    amount: float = 0.0
    scale: float = 1.0
    window: float = 0.0
    policies: list[RecordedPolicy] = Field([])
    """The policies of a batch, with the next two: so many images by each."""
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
    recorded = parse_json(json.dumps(policy), RecordedPolicy, f"the policy in {where}")
    _check_modules(where, recorded)


def _check_modules(where: object, policy: RecordedPolicy) -> None:
    for member in policy.policies:
        _check_modules(where, member)
    source = policy.source
    if source is None:
        return
    if source.partition(":")[0] in REGISTRY:
        if shipped(source) is None:
            raise InputError(
                f"{where} names the module that came with {source}, which this version lacks: give"
                " its place with --tpm DIR, or another policy"
            )
        return
    if policy.name in POLICIES and not POLICIES[policy.name].takes_module:
        return  # its deviations are in the record
    repository = Repository.read(source)
    if expanded(source).exists() or (repository is not None and is_cached(*repository)):
        return
    raise InputError(
        f"{where} names the module {source}, which is not on this machine: give --tpm with its"
        f" place{'' if repository is None else ', or repeat it there to download it'}"
    )
