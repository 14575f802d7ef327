"""What CONTRIBUTING.md promises: a policy is a class and a row, and so is a reward."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine import Reward, StepState, policy_from_dict, rewards
from asyncdiff_cli.engine.checks import check_deviation
from asyncdiff_cli.engine.drawing.provenance import read_provenance
from asyncdiff_cli.engine.policies.base import Described
from asyncdiff_cli.engine.policies.table import POLICIES, PolicyRow
from asyncdiff_cli.engine.rewards import RewardEntry


@dataclass(frozen=True)
class Alternating(Described):
    """Ahead and behind in turn.

    Args:
        swing: D of the first decision, in [-1, 1].
    """

    swing: float

    name: ClassVar[str] = "alternating"  # in records: never change it
    bound: ClassVar[float] = 1.0

    def __call__(self, state: StepState) -> Tensor:
        return torch.tensor(self.swing * (-1) ** state.index)


class Brightness(Reward):
    """Mean value of the pixels, of 255."""

    name: ClassVar[str] = "brightness"
    range: ClassVar[tuple[float, float]] = (0.0, 255.0)
    reads_prompt: ClassVar[bool] = False

    @classmethod
    def load(cls, path: str | Path | None = None, revision: str | None = None) -> Self:
        return cls()  # a formula has nothing to load

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        return torch.tensor([float(np.asarray(image).mean()) for image in images])


@pytest.fixture(autouse=True)
def _rows(monkeypatch):
    row = PolicyRow(
        f"{__name__}:Alternating", "alternating:D", "alternating:0.5", (check_deviation,)
    )
    monkeypatch.setitem(POLICIES, "alternating", row)
    monkeypatch.setitem(rewards.ENTRIES, "brightness", RewardEntry(__name__, "Brightness"))


def test_a_new_policy_draws_and_is_recorded(asyncdiff, draw):
    (image,) = draw("a cat", "--policy", "alternating:0.5@2", "--json").json["images"]
    assert (image["deviations"], image["gamma"]) == ([0.5, -0.5], 2)
    recorded = read_provenance(image["path"]).policy
    assert policy_from_dict(recorded) == Alternating(0.5)
    again = asyncdiff("sample", "--from", image["path"], "--out", "again", "--json").json
    ours, theirs = (np.asarray(Image.open(x["path"])) for x in (image, *again["images"]))
    assert np.array_equal(ours, theirs)


def test_a_new_policy_is_refused_as_others_are(draw):
    outcome = draw("a cat", "--policy", "alternating:1.5")
    assert (outcome.code, outcome.out) == (2, "")
    assert "policy alternating: " in outcome.err
    assert "such as alternating:0.5" in draw("a cat", "--policy", "alternating").err


def test_a_new_reward_scores(asyncdiff, tmp_path):
    Image.new("RGB", (8, 8), (30, 60, 90)).save(tmp_path / "plain.png")
    done = asyncdiff("score", "plain.png", "--rewards", "brightness", "--json")
    (image,) = done.json["images"]
    assert image["scores"] == {"brightness": 60}


@pytest.mark.parametrize("shown", [Alternating, Brightness])
def test_it_is_what_the_guide_shows(shown):
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert inspect.getsource(shown) in guide
