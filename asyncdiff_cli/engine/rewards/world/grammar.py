"""Prompts and what they ask for: `say` writes a `SceneRequest` in words, `parse` reads it back."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asyncdiff_cli.engine.rewards.world.vocabulary import (
    COLOURS,
    HUES,
    MATERIALS,
    THINGS,
    with_article,
)

NUMBERS = ("no", "one", "two", "three", "four")
SIZES = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
PLACES = {
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "middle": ("in the middle", "in the center"),
}
RELATIONS = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_PATTERN_WORDS = {
    "plain": ("on a {} background", "on a plain {} background"),
    "gradient": ("on a {} gradient", "on a {} gradient background"),
    "stripes": ("on {} stripes", "on a {} striped background"),
    "dots": ("on {} dots", "on a {} dotted background"),
    "checks": ("on {} checks", "on a {} checked background"),
}
_MATERIAL_WORDS = {
    "grass": ("on grass", "in the grass"),
    "sand": ("on sand", "in the sand"),
    "wood": ("on wood", "on a wooden board"),
    "brick": ("on bricks", "on a brick wall"),
    "water": ("on water", "in the water"),
    "marble": ("on marble",),
    "cloud": ("on clouds", "in the clouds"),
    "starry night": ("on a starry night", "under a starry sky"),
}
CANONICAL = 0.6  # how often the first of several wordings is chosen


@dataclass(frozen=True)
class Phrase:
    """A number of one thing; an empty size or colour asks for none in particular."""

    thing: str
    count: int = 1
    size: str = ""
    colour: str = ""


@dataclass(frozen=True)
class SceneRequest:
    """What a prompt asks for; an empty string asks for nothing in particular.

    Attributes:
        place: where the only thing is, a key of `PLACES`.
        relation: where the first of two things is, seen from the second, a key of `RELATIONS`.
        ground: one of `vocabulary.GROUNDS`.
        ground_colour: of a pattern, one of `vocabulary.COLOURS`.
    """

    phrases: tuple[Phrase, ...]
    place: str = ""
    relation: str = ""
    ground: str = ""
    ground_colour: str = ""


def say(request: SceneRequest, rng: random.Random | None = None) -> str:
    """A caption for ``request``: worded at random, or without ``rng`` in the first wording."""

    def choose(wordings: Sequence[str]) -> str:
        if rng is None or len(wordings) == 1 or rng.random() < CANONICAL:
            return wordings[0]
        return wordings[1 + int(rng.random() * (len(wordings) - 1))]

    phrases = [_say_phrase(phrase, choose) for phrase in request.phrases]
    if request.relation:
        words = f"{phrases[0]} {choose(RELATIONS[request.relation])} {phrases[1]}"
    else:
        words = " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))
    if request.place:
        words = f"{words} {choose(PLACES[request.place])}"
    if request.ground in MATERIALS:
        return f"{words} {choose(_MATERIAL_WORDS[request.ground])}"
    if request.ground:
        ground = choose(_PATTERN_WORDS[request.ground]).format(request.ground_colour)
        return f"{words} {re.sub(r'a (?=orange )', 'an ', ground)}"
    return words


def _say_phrase(phrase: Phrase, choose: Callable[[Sequence[str]], str]) -> str:
    thing = _BY_NAME[phrase.thing]
    noun = thing.plural if phrase.count > 1 else choose(thing.words)
    size = choose(SIZES[phrase.size]) if phrase.size else ""
    words = " ".join(filter(None, (size, phrase.colour, noun)))
    return with_article(words) if phrase.count == 1 else f"{NUMBERS[phrase.count]} {words}"


def parse(prompt: str) -> SceneRequest:
    """What ``prompt`` asks for, in any wording of the captions.

    Raises:
        ValueError: the prompt has a part that no caption has; the message names it.
    """
    words = " ".join(prompt.lower().strip(" .!").split())
    words, ground, colour = _split_ground(words)
    words, place = _split_tail(words, _PLACE_WORDS)
    relation = ""
    for wording, key in _RELATION_WORDS:
        first, found, second = words.partition(f" {wording} ")
        if found:
            relation, parts = key, [first, second]
            break
    else:
        parts = re.split(r",? and |, ", words)
    request = SceneRequest(tuple(map(_parse_phrase, parts)), place, relation, ground, colour)
    if place and len(parts) > 1:
        raise ValueError(f"{prompt!r} names a place for more than one thing")
    return request


def _split_ground(words: str) -> tuple[str, str, str]:
    for ending, ground, colour in _GROUND_WORDS:
        if words.endswith(f" {ending}"):
            return words.removesuffix(f" {ending}"), ground, colour
    return words, "", ""


def _split_tail(words: str, endings: list[tuple[str, str]]) -> tuple[str, str]:
    for ending, key in endings:
        if words.endswith(f" {ending}"):
            return words.removesuffix(f" {ending}"), key
    return words, ""


def _parse_phrase(words: str) -> Phrase:
    count, rest = 1, words
    head, _, tail = rest.partition(" ")
    if head in ("a", "an", "the", "one", "1"):
        rest = tail
    elif head in _COUNTS:
        count, rest = _COUNTS[head], tail
    head, _, tail = rest.partition(" ")
    size = _SIZE_WORDS.get(head, "") if tail else ""
    rest = tail if size else rest
    if rest in _NOUNS:
        return Phrase(_NOUNS[rest], count, size)
    colour, _, noun = rest.partition(" ")
    if colour in HUES and noun in _NOUNS:
        return Phrase(_NOUNS[noun], count, size, colour)
    raise ValueError(f"{words!r} is nothing that mini can draw")


def _longest_first(wordings: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    pairs = [(wording, key) for key, several in wordings.items() for wording in several]
    return sorted(pairs, key=lambda pair: -len(pair[0]))


def _ground_words() -> list[tuple[str, str, str]]:
    endings = [(w, ground, "") for ground, several in _MATERIAL_WORDS.items() for w in several]
    for ground, several in _PATTERN_WORDS.items():
        for colour in COLOURS:
            filled = [wording.format(colour) for wording in several]
            endings += [(w, ground, colour) for w in filled]
            endings += [(w.replace(" a ", " an "), ground, colour) for w in filled]
    return sorted(endings, key=lambda ending: -len(ending[0]))


_BY_NAME = {thing.name: thing for thing in THINGS}
_NOUNS = {word.lower(): thing.name for thing in THINGS for word in (*thing.words, thing.plural)}
_COUNTS = {word: n for n, name in enumerate(NUMBERS) if n > 1 for word in (name, str(n))}
_SIZE_WORDS = {word: size for size, several in SIZES.items() for word in several}
_PLACE_WORDS = _longest_first(PLACES)
_RELATION_WORDS = _longest_first(RELATIONS)
_GROUND_WORDS = _ground_words()


def words() -> list[str]:
    """Every word of the captions but the names of things and colours."""
    wordings = [*SIZES.values(), *PLACES.values(), *RELATIONS.values(), *_MATERIAL_WORDS.values()]
    wordings += _PATTERN_WORDS.values()
    spoken = [word for several in wordings for wording in several for word in wording.split()]
    return sorted({*spoken, *NUMBERS[1:], "a", "an", "the", "and"} - {"{}"})
