"""What every prompt of an evaluation is drawn with, and the keys of its images in a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncdiff_cli.engine.drawing.seeds import EVALUATION, noise_seed
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.setting import Setting
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.store_rows import Key, described
from asyncdiff_cli.engine.policies.specs import ChosenPolicy

if TYPE_CHECKING:
    from asyncdiff_cli.engine.policies.base import Policy


@dataclass(frozen=True)
class Contender:
    """What each prompt is drawn with: a row of the table."""

    chosen: ChosenPolicy
    steps: int

    @property
    def label(self) -> str:
        """The policy as it was asked for, without its γ."""
        return self.chosen.label

    @property
    def policy(self) -> Policy:
        """The policy itself."""
        return self.chosen.policy

    @property
    def gamma(self) -> float:
        """What its deviations are multiplied by."""
        return self.chosen.gamma

    @property
    def setting(self) -> Setting:
        """What a store knows it by."""
        return Setting(self.label, self.gamma, float(self.policy.bound), self.steps)

    @property
    def description(self) -> str:
        """The policy's settings as JSON. Where a module lies is not one of them."""
        settings = {k: v for k, v in self.policy.to_dict().items() if k != "source"}
        return json.dumps(settings, sort_keys=True)


@dataclass(frozen=True)
class EvaluationCell:
    """One image of an evaluation: a prompt with a contender."""

    prompt_id: int
    contender: Contender
    number: int = 0
    """Which image of the prompt, each of a noise of its own."""


def key(seed: int, cell: EvaluationCell) -> Key:
    """The key of an image's row in an evaluation with this seed."""
    return key_of(seed, cell.prompt_id, cell.number, cell.contender.setting)


def key_of(seed: int, prompt_id: int, number: int, setting: Setting) -> Key:
    """The key of an image of a prompt, the first of which has the number 0."""
    return Key(prompt_id, seed_of_noise(seed, prompt_id, number), *setting)


def seed_of_noise(seed: int, prompt_id: int, number: int) -> int:
    """The seed of the noise that all policies draw an image of a prompt from.

    Args:
        seed: of the evaluation.
        number: of the prompt's images, from 0.
    """
    return noise_seed(seed, EVALUATION, prompt_id, *([number] if number else []))


def check_descriptions(store: Store, contenders: Sequence[Contender]) -> None:
    """A label in a store stands for the same policy as here.

    Raises:
        InputError: naming the label that does not, such as a module that was trained on.
    """
    descriptions = {c.label: c.description for c in contenders}
    for label, settings in described(store.read(["policy_settings"])):
        if descriptions.get(label, settings) != settings:
            raise InputError(
                f"in {store.path} {label} was another policy ({settings}): give another --out"
            )
