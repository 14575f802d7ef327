import random

import pytest

from asyncdiff_cli.engine.rewards.world.grammar import Phrase, SceneRequest, parse, say, words
from asyncdiff_cli.engine.rewards.world.vocabulary import (
    COLOURS,
    GROUNDS,
    HUES,
    MATERIALS,
    THINGS,
    pluralise,
    with_article,
)
from mini.contradictions import CONTRADICTIONS, can_contradict, contradict
from mini.scenes import Scenes


def test_every_wording_is_read_back(scenes: Scenes) -> None:
    rng = random.Random(0)
    for _ in range(400):
        facts = scenes.facts(scenes.draw(rng), rng)
        assert parse(say(facts, rng)) == facts


@pytest.mark.parametrize("ground", GROUNDS)
def test_every_ground_and_thing_is_read_back(ground: str) -> None:
    rng = random.Random(ground)
    for thing in THINGS:
        colour = "" if ground in MATERIALS else rng.choice(list(COLOURS))
        phrase = Phrase(thing.name, rng.choice((1, 2, 4)), "", rng.choice(list(HUES)))
        request = SceneRequest((phrase,), ground=ground, ground_colour=colour)
        assert parse(say(request, rng)) == request


def test_prompts_as_users_write_them() -> None:
    cat, dog = Phrase("cat"), Phrase("dog")
    assert parse("A cat.") == SceneRequest((cat,))
    assert parse("cat") == SceneRequest((cat,))
    assert parse("3 cats, a dog and a red fire engine") == SceneRequest(
        (Phrase("cat", 3), dog, Phrase("fire engine", colour="red"))
    )
    assert parse("the puppy to the right of a kitty in the grass") == SceneRequest(
        (dog, cat), relation="right", ground="grass"
    )
    assert parse("an orange orange on an orange background").phrases[0].colour == "orange"
    assert parse("a cat on the left").place == "left"


@pytest.mark.parametrize(
    "prompt", ["a spaceship", "a cat near a dog", "", "a cat and a dog at the top"]
)
def test_what_no_caption_says_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match=r"nothing that mini|names a place"):
        parse(prompt)


def test_a_contradiction_changes_one_fact(scenes: Scenes) -> None:
    rng = random.Random(1)
    for _ in range(200):
        facts = scenes.facts(scenes.draw(rng), rng)
        assert contradict(facts, rng) != facts
        for name, exchange in CONTRADICTIONS.items():
            if can_contradict(facts, name):
                assert exchange(facts, rng) != facts


def test_order_is_contradicted_where_it_was_said() -> None:
    plain = SceneRequest((Phrase("cat"), Phrase("dog")))
    assert not can_contradict(plain, "order")
    swapped = CONTRADICTIONS["order"](
        SceneRequest((Phrase("cat", colour="red"), Phrase("dog")), relation="left"),
        random.Random(0),
    )
    assert swapped.phrases == (Phrase("dog", colour="red"), Phrase("cat"))


def test_names_are_unique_and_every_word_is_listed(scenes: Scenes) -> None:
    every = [word for thing in THINGS for word in {*thing.words, thing.plural}]
    assert len(set(every)) == len(every)
    known = {w for name in every for w in name.split()} | set(words()) | set(COLOURS)
    rng = random.Random(2)
    said = (say(scenes.facts(scenes.draw(rng), rng), rng) for _ in range(200))
    assert {word for caption in said for word in caption.split()} <= known


@pytest.mark.parametrize(
    ("name", "one", "several"),
    [("cherry", "a cherry", "cherries"), ("octopus", "an octopus", "octopuses"),
     ("UFO", "a UFO", "UFOs"), ("fox", "a fox", "foxes"), ("umbrella", "an umbrella", "umbrellas"),
     ("unicorn", "a unicorn", "unicorns"), ("key", "a key", "keys")],
)  # fmt: skip
def test_articles_and_plurals(name: str, one: str, several: str) -> None:
    assert (with_article(name), pluralise(name)) == (one, several)
