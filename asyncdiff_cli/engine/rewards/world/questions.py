"""Prompts to evaluate with, by category, with what a right picture must show."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from asyncdiff_cli.engine.rewards.world.grammar import OPPOSITE, PLACES, Phrase, Request, say
from asyncdiff_cli.engine.rewards.world.held_out import (
    colour_held_out,
    count_held_out,
    pair_held_out,
    relation_held_out,
)
from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, GROUNDS, HUES, MATERIALS

Things = Mapping[str, object]
"""What can be drawn; true of a thing that takes a colour."""


@dataclass(frozen=True)
class Question:
    """A request and the kinds of answers that must be right."""

    category: str
    request: Request
    needs: tuple[str, ...]

    @property
    def prompt(self) -> str:
        return say(self.request)


NEEDS = {
    "single": ("things",),
    "pair": ("things",),
    "count": ("things", "counts"),
    "colour": ("things", "colours"),
    "place": ("things", "places"),
    "relation": ("things", "relations"),
    "ground": ("ground",),
}
"""Categories, as T2I-CompBench has them, and which answers count in each."""


def ask(things: Things, count: int, seed: int) -> list[Question]:
    """``count`` questions of each category, about combinations that were never trained on.

    Single things, places and grounds have no combination that is held out.
    """
    rng = random.Random(f"{seed}/questions")
    questions = []
    for category, needs in NEEDS.items():
        every = list(_POSSIBLE[category](things, rng))
        rng.shuffle(every)
        while 0 < len(every) < count:
            every += every[: count - len(every)]
        questions += [Question(category, request, needs) for request in every[:count]]
    return questions


def _singles(things: Things, rng: random.Random) -> Iterator[Request]:
    return (Request((Phrase(thing),)) for thing in things)


def _pairs(things: Things, rng: random.Random) -> Iterator[Request]:
    for first, second in combinations(things, 2):
        if pair_held_out(first, second):
            yield Request((Phrase(first), Phrase(second)))


def _counts(things: Things, rng: random.Random) -> Iterator[Request]:
    for thing in things:
        for number in (2, 3, 4):
            if count_held_out(thing, number):
                yield Request((Phrase(thing, number),))


def _colours(things: Things, rng: random.Random) -> Iterator[Request]:
    for thing in things:
        for colour in HUES:
            if things[thing] and colour_held_out(thing, colour):
                yield Request((Phrase(thing, colour=colour),))


def _places(things: Things, rng: random.Random) -> Iterator[Request]:
    return (Request((Phrase(thing),), place) for thing in things for place in PLACES)


def _relations(things: Things, rng: random.Random) -> Iterator[Request]:
    for first, second in combinations(things, 2):
        relation = rng.choice(list(OPPOSITE))
        if relation_held_out(first, relation, second) and not pair_held_out(first, second):
            yield Request((Phrase(first), Phrase(second)), relation=relation)


def _grounds(things: Things, rng: random.Random) -> Iterator[Request]:
    for thing in things:
        ground = rng.choice(GROUNDS)
        colour = "" if ground in MATERIALS else rng.choice(list(COLOURS))
        yield Request((Phrase(thing),), ground=ground, ground_colour=colour)


_POSSIBLE: dict[str, Callable[[Things, random.Random], Iterator[Request]]] = {
    "single": _singles,
    "pair": _pairs,
    "count": _counts,
    "colour": _colours,
    "place": _places,
    "relation": _relations,
    "ground": _grounds,
}
