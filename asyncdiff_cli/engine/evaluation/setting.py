"""What the images of a row of a table were drawn with: the policy, γ, the bound and the steps.

A policy comes here in stages. `PolicySpec` is what was typed, `ChosenPolicy` has the policy that it
makes, and `Contender` has that at a number of steps. `Setting` is what a store knows of it, and
`Key` is a setting with a prompt and its noise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asyncdiff_cli.engine.policies.specs import (
    in_repository,
    is_schedule_file,
    plain,
    takes_module,
)

PLACE = 60
"""Characters of a policy's line that are a part of file names, where it names a place."""


class Setting(NamedTuple):
    """What the images of a table's row were drawn with."""

    policy: str
    gamma: float
    bound: float
    """Infinite for a policy that has none, such as detail-daemon."""
    steps: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Setting:
        """The setting of a store's row."""
        return cls(*(row[name] for name in SETTING))

    @property
    def file(self) -> str:
        """Its part of the name of a file or folder, which is no other's."""
        label = re.sub(r"[^A-Za-z0-9.+-]+", "-", self.policy).strip("-")
        if _names_a_place(self.policy):
            digest = hashlib.sha256(self.policy.encode()).hexdigest()
            label = f"{label[:PLACE]}-{digest[:6]}"
        return f"{label}-gamma{plain(self.gamma)}-steps{self.steps}"

    @property
    def label(self) -> str:
        """The policy, with γ where it is not 1: "learned", "learned, γ = 0.5"."""
        return self.policy if self.gamma == 1 else f"{self.policy}, γ = {self.gamma:g}"


def _names_a_place(policy: str) -> bool:
    """Whether a policy's line has the place of a module or of a file, not numbers."""
    module = ":" in policy and takes_module(policy)
    return module or is_schedule_file(policy) or in_repository(policy)


SETTING = ("policy", "gamma", "bound", "num_inference_steps")
"""The store's columns that a setting is made of."""


def labels(settings: Sequence[Setting]) -> list[str]:
    """The labels of settings beside one another, with the number of steps where it differs."""
    several = len({setting.steps for setting in settings}) > 1
    return [f"{s.label}, {s.steps} steps" if several else s.label for s in settings]
