"""The judge as a reward: the questions of a prompt, answered by a detector."""

import json
import shutil

import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine import AsyncDiffError, InputError, load_reward, rewards
from asyncdiff_cli.engine.assets import ASSETS
from asyncdiff_cli.engine.rewards import check_prompts, embedded, read_reward
from asyncdiff_cli.engine.rewards.mini_judge import MiniJudge
from asyncdiff_cli.engine.rewards.world.judge import GRID, Seen
from asyncdiff_cli.engine.rewards.world.vocabulary import (
    COLOURS,
    GROUNDS,
    ITEM_COLOURS,
    THING_PLACES,
    THINGS,
)

PROMPT = "a red car left of a dog on bricks"


@pytest.fixture
def judge(judge_directory):
    return MiniJudge.from_directory(judge_directory)


def picture(level, side=128):
    return Image.new("RGB", (side, side), (level, 255 - level, 90))


def seen(*things, ground="brick"):
    """What a judge that is sure sees: things at cells of the grid in a colour."""
    presence = torch.full((1, GRID, GRID), -20.0)
    thing = torch.zeros(1, len(THINGS), GRID, GRID)
    colour = torch.zeros(1, len(ITEM_COLOURS), GRID, GRID)
    for name, row, column, tint in things:
        presence[0, row, column] = 20.0
        thing[0, THING_PLACES[name], row, column] = 40.0
        colour[0, ITEM_COLOURS.index(tint), row, column] = 40.0
    on = torch.zeros(1, len(GROUNDS))
    on[0, GROUNDS.index(ground)] = 40.0
    centre = torch.zeros(1, 2, GRID, GRID)
    return Seen(
        presence, thing, colour, centre, on, torch.zeros(1, len(COLOURS)), torch.zeros(1, 4)
    )


@pytest.mark.parametrize(
    ("things", "ground", "expected"),
    [
        ((("car", 8, 3, "red"), ("dog", 8, 12, "natural")), "brick", 1.0),
        ((("car", 8, 3, "blue"), ("dog", 8, 12, "natural")), "brick", 6 / 7),
        ((("car", 8, 12, "red"), ("dog", 8, 3, "natural")), "brick", 6 / 7),
        ((("car", 8, 3, "red"), ("dog", 8, 12, "natural")), "sand", 6 / 7),
        ((("car", 8, 3, "red"), ("dog", 8, 12, "natural"), ("dog", 2, 2, "red")), "brick", 6 / 7),
        ((), "brick", 1 / 7),
    ],
)
def test_the_score_is_the_share_of_questions_that_are_answered(judge, things, ground, expected):
    judge.model.forward = lambda pictures: seen(*things, ground=ground)
    assert judge.score(picture(0), PROMPT).item() == pytest.approx(expected, abs=1e-3)


def test_the_details_are_what_the_score_is_the_mean_of(judge):
    pictures, prompts = [picture(10), picture(200, side=64)], [PROMPT, "three cats"]
    details = judge.details(pictures, prompts)
    assert [each["category"] for each in details[0]] == [
        *("things", "counts", "colours", "things", "counts", "relations", "ground")
    ]
    means = [sum(each["probability"] for each in own) / len(own) for own in details]
    assert judge.score(pictures, prompts).tolist() == pytest.approx(means)
    alone = [judge.score(*pair).item() for pair in zip(pictures, prompts, strict=True)]
    assert judge.score(pictures, prompts).tolist() == pytest.approx(alone, abs=1e-6)


def test_a_prompt_beyond_the_grammar_is_refused(judge):
    with pytest.raises(
        InputError, match=r"cannot read 'a spaceship': .* nothing that mini can draw"
    ):
        judge.score(picture(0), "a spaceship")
    prompts = ["a cat", "a spaceship", "a cat near a dog"]
    with pytest.raises(InputError, match=r"'a spaceship'.*\(2 of 3 prompts\): leave them out, or"):
        check_prompts(["noise", "mini_judge"], prompts)
    check_prompts(["mini_judge"], prompts[:1])
    check_prompts(["noise", "mini_clip"], prompts)
    assert len(MiniJudge.refuses("x " * 5000)) < 400


def test_it_is_there_once_its_weights_are(judge_directory, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "ASSETS", tmp_path)
    with pytest.raises(InputError, match=r"mini_judge is not in this package.*=DIR"):
        load_reward("mini_judge")
    assert load_reward("mini_judge", judge_directory, device="cpu").name == "mini_judge"
    shutil.copytree(judge_directory, tmp_path / "mini_judge")
    assert 0 <= load_reward("mini_judge", device="cpu").score(picture(0), "a cat").item() <= 1
    shipped = (ASSETS / "mini_judge").is_dir()
    assert ("mini_judge" in rewards.AVAILABLE) is shipped
    with pytest.raises(InputError, match="is a part of this package"):
        read_reward("mini_judge", revision="main")


def test_a_judge_of_another_world_is_refused(judge_directory, tmp_path):
    other = shutil.copytree(judge_directory, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["things"].reverse()
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(AsyncDiffError, match="judges another world"):
        MiniJudge.from_directory(other)
    (other / "config.json").write_text("{}")
    with pytest.raises(InputError, match="damaged"):
        MiniJudge.from_directory(other)
