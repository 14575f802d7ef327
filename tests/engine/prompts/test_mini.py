"""Prompts of mini's world: as many of each category, and nothing shown in both splits."""

from collections import Counter

import pytest

from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY
from asyncdiff_cli.engine.backbones.vocabulary import Vocabulary
from asyncdiff_cli.engine.prompts.load import load_evaluation_prompts, load_prompts
from asyncdiff_cli.engine.prompts.mini import EACH, EXAMPLES, compose
from asyncdiff_cli.engine.rewards.mini_judge import MiniJudge
from asyncdiff_cli.engine.rewards.world.grammar import parse, say
from asyncdiff_cli.engine.rewards.world.held_out import is_unseen
from asyncdiff_cli.engine.rewards.world.questions import NEEDS, UNSEEN
from asyncdiff_cli.engine.rewards.world.vocabulary import THINGS

ALL = {thing.name: thing.name != "sheep" for thing in THINGS}
SIZES = {"train": 300, "validation": 60}
FINGERPRINTS = {"train": "78e8f3f7b3d24c11", "validation": "13ddb706b38ca582"}
"""The same on every machine."""


@pytest.fixture(scope="module")
def found():
    return {split: compose(ALL, split, count) for split, count in SIZES.items()}


def test_categories_have_as_many_prompts(found):
    for split, own in found.items():
        assert Counter(own.values()) == dict.fromkeys(NEEDS, SIZES[split])


def test_the_judge_can_read_every_prompt(found):
    for own in found.values():
        assert not any(map(MiniJudge.refuses, own))


def test_validation_asks_for_what_was_never_trained_on(found):
    for text, category in found["validation"].items():
        assert is_unseen(parse(text)) or category not in UNSEEN
    assert not any(is_unseen(parse(text)) for text in found["train"])
    shown = [{say(parse(text)) for text in own} for own in found.values()]
    assert shown[0].isdisjoint(shown[1])


def test_prompts_are_about_their_category(found):
    requests = {category: [] for category in NEEDS}
    for own in found.values():
        for text, category in own.items():
            requests[category].append(parse(text))
    assert all(r.phrases[0].colour for r in requests["colour"])
    assert all(r.phrases[0].count > 1 for r in requests["count"])
    assert all(r.place for r in requests["place"])
    assert all(r.relation for r in requests["relation"])
    assert all(r.ground for r in requests["ground"])
    assert all(len(r.phrases) == 2 and not r.relation for r in requests["pair"])
    assert not any(p.colour for r in requests["single"] for p in r.phrases)
    assert not any(p.thing == "sheep" and p.colour for r in requests["colour"] for p in r.phrases)
    grounds = [bool(r.ground) for c, own in requests.items() if c != "ground" for r in own]
    assert 0.5 < sum(grounds) / len(grounds) < 0.75


def test_few_things_have_fewer_prompts():
    few = compose({"cat": True, "dog": False, "car": True}, "validation", 40)
    assert 0 < len(few) < 40 * len(NEEDS)
    assert all(parse(text).phrases[0].thing in ("cat", "dog", "car") for text in few)


def test_the_set_has_as_many_prompts_of_each_category():
    for split, each in EACH.items():
        prompts = load_prompts("mini", split)
        assert Counter(prompts.categories) == dict.fromkeys(NEEDS, each)
        assert len(set(prompts.texts)) == len(prompts)
        assert prompts.fingerprint[:16] == FINGERPRINTS[split]
    assert load_evaluation_prompts("mini") == prompts
    few = [prompts.categories[place] for place in prompts.order(70, 42)]
    assert set(few) == set(NEEDS)


def test_it_speaks_the_words_of_the_shipped_weights():
    words = Vocabulary.load(MINI_DIRECTORY)
    assert set(words.objects) == set(ALL)
    examples = [text for several in EXAMPLES.values() for text in several]
    assert words.unknown([*load_prompts("mini", "validation").texts, *examples]) == []
    assert not any(map(MiniJudge.refuses, examples))
