"""What CONTRIBUTING.md promises: a policy is a class and a row, and so is a reward."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine import Reward, policy_from_dict, rewards
from asyncdiff_cli.engine.checks import check_deviation
from asyncdiff_cli.engine.drawing.provenance import read_provenance
from asyncdiff_cli.engine.policies.base import Described
from asyncdiff_cli.engine.policies.table import POLICIES, PolicyRow
from asyncdiff_cli.engine.rewards import RewardEntry


@dataclass(frozen=True)
class Alternating(Described):
    """Ahead and behind in turn."""

    swing: float

    name: ClassVar[str] = "alternating"
    bound: ClassVar[float] = 1.0

    def __call__(self, state):
        return torch.tensor(self.swing * (-1) ** state.index)


class Brightness(Reward):
    """Mean value of the pixels, of 255."""

    name = "brightness"
    range = (0.0, 255.0)
    reads_prompt = False

    @classmethod
    def load(cls, path=None, revision=None):
        return cls()

    def _score(self, images, prompts):
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
