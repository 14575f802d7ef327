"""Prompts and what they ask for: `say` writes a `Request` in words, `parse` reads it back."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mini.vocabulary import COLOURS, GROUNDS, HUES, MATERIALS, THINGS, with_article

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
    """Some of one thing; an empty size or colour asks for none in particular."""

    thing: str
    count: int = 1
    size: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Request:
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


def say(request: Request, rng: random.Random | None = None) -> str:
    """A caption for ``request``: worded at random, or without ``rng`` in the first wording."""

    def choose(wordings: Sequence[str]) -> str:
        if rng is None or len(wordings) == 1 or rng.random() < CANONICAL:
            return wordings[0]
        return wordings[rng.randrange(1, len(wordings))]

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


def _say_phrase(phrase: Phrase, choose) -> str:
    thing = _BY_NAME[phrase.thing]
    noun = thing.plural if phrase.count > 1 else choose(thing.words)
    size = choose(SIZES[phrase.size]) if phrase.size else ""
    words = " ".join(filter(None, (size, phrase.colour, noun)))
    return with_article(words) if phrase.count == 1 else f"{NUMBERS[phrase.count]} {words}"


def parse(prompt: str) -> Request:
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
    request = Request(tuple(map(_parse_phrase, parts)), place, relation, ground, colour)
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


def contradict(request: Request, rng: random.Random) -> Request:
    """``request`` with one fact exchanged for another, so that it is wrong of the same picture."""
    possible = [name for name in CONTRADICTIONS if can_contradict(request, name)]
    return CONTRADICTIONS[rng.choice(possible)](request, rng)


def can_contradict(request: Request, name: str) -> bool:
    """Whether ``request`` states a fact of this kind, a key of `CONTRADICTIONS`."""
    if name == "order":
        return len(request.phrases) == 2 and (bool(request.relation) or _attributes(request))
    stated = {
        "colour": any(phrase.colour for phrase in request.phrases),
        "place": bool(request.place),
        "ground": bool(request.ground),
    }
    return stated.get(name, True)


def _attributes(request: Request) -> bool:
    """Whether exchanging the names of the two things changes what is asked for."""
    first, second = request.phrases
    return (first.count, first.size, first.colour) != (second.count, second.size, second.colour)


def _exchange(request: Request, old: Phrase, new: Phrase) -> Request:
    phrases = tuple(new if phrase is old else phrase for phrase in request.phrases)
    return replace(request, phrases=phrases)


def _another(options: Sequence, own: Sequence, rng: random.Random):
    return rng.choice([option for option in options if option not in own])


def _other_thing(request: Request, rng: random.Random) -> Request:
    shown, own = [phrase.thing for phrase in request.phrases], rng.choice(request.phrases)
    return _exchange(request, own, replace(own, thing=_another(list(_BY_NAME), shown, rng)))


def _other_count(request: Request, rng: random.Random) -> Request:
    own = rng.choice(request.phrases)
    count = _another((1, 2, 3, 4), (own.count,), rng)
    return _exchange(request, own, replace(own, count=count, size=""))


def _other_colour(request: Request, rng: random.Random) -> Request:
    own = rng.choice([phrase for phrase in request.phrases if phrase.colour])
    colour = _another(list(HUES), (own.colour,), rng)
    return _exchange(request, own, replace(own, colour=colour))


def _other_order(request: Request, rng: random.Random) -> Request:
    """Each thing takes the other's place, count and colour."""
    first, second = request.phrases
    swapped = replace(first, thing=second.thing), replace(second, thing=first.thing)
    return replace(request, phrases=swapped)


def _other_place(request: Request, rng: random.Random) -> Request:
    return replace(request, place=_another(list(PLACES), (request.place,), rng))


def _other_ground(request: Request, rng: random.Random) -> Request:
    if request.ground_colour and rng.random() < 0.5:
        colour = _another(list(COLOURS), (request.ground_colour,), rng)
        return replace(request, ground_colour=colour)
    ground = _another(GROUNDS, (request.ground,), rng)
    colour = "" if ground in MATERIALS else request.ground_colour or rng.choice(list(COLOURS))
    return replace(request, ground=ground, ground_colour=colour)


CONTRADICTIONS: dict[str, Callable[[Request, random.Random], Request]] = {
    "thing": _other_thing,
    "count": _other_count,
    "colour": _other_colour,
    "order": _other_order,
    "place": _other_place,
    "ground": _other_ground,
}
