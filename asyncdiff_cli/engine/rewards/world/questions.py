"""Prompts to evaluate with, by category, with what a right picture must show."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, cycle

from asyncdiff_cli.engine.rewards.world.grammar import OPPOSITE, PLACES, Phrase, SceneRequest, say
from asyncdiff_cli.engine.rewards.world.held_out import is_unseen, pair_held_out
from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, GROUNDS, HUES, MATERIALS

Things = Mapping[str, object]
"""What can be drawn; true of a thing that takes a colour."""


@dataclass(frozen=True)
class Question:
    """A request and the kinds of answers that must be right."""

    category: str
    request: SceneRequest
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


UNSEEN = ("pair", "count", "colour", "relation")
"""Categories whose combinations can be held out."""


def make_questions(things: Things, count: int, seed: int) -> list[Question]:
    """``count`` questions of each category, about combinations that were never trained on.

    Single things, places and grounds have no combination that is held out.
    """
    rng = random.Random(f"{seed}/questions")
    questions = []
    for category, needs in NEEDS.items():
        every = [r for r in possible(category, things) if category not in UNSEEN or is_unseen(r)]
        rng.shuffle(every)
        while 0 < len(every) < count:
            every += every[: count - len(every)]
        questions += [Question(category, request, needs) for request in every[:count]]
    return questions


def possible(category: str, things: Things) -> Iterator[SceneRequest]:
    """What prompts of a category can ask for, but for the ground of other categories than that."""
    return _POSSIBLE[category](things)


def _singles(things: Things) -> Iterator[SceneRequest]:
    return (SceneRequest((Phrase(thing),)) for thing in things)


def _pairs(things: Things) -> Iterator[SceneRequest]:
    return (SceneRequest((Phrase(a), Phrase(b))) for a, b in combinations(things, 2))


def _counts(things: Things) -> Iterator[SceneRequest]:
    return (SceneRequest((Phrase(thing, number),)) for thing in things for number in (2, 3, 4))


def _colours(things: Things) -> Iterator[SceneRequest]:
    named = (thing for thing, takes_colour in things.items() if takes_colour)
    return (SceneRequest((Phrase(thing, colour=colour),)) for thing in named for colour in HUES)


def _places(things: Things) -> Iterator[SceneRequest]:
    return (SceneRequest((Phrase(thing),), place) for thing in things for place in PLACES)


def _relations(things: Things) -> Iterator[SceneRequest]:
    """One of each pair that mini has seen; the relations take turns."""
    relations = cycle(OPPOSITE)
    for first, second in combinations(things, 2):
        if not pair_held_out(first, second):
            yield SceneRequest((Phrase(first), Phrase(second)), relation=next(relations))


def _grounds(things: Things) -> Iterator[SceneRequest]:
    """A pattern has another colour for every thing."""
    for number, thing in enumerate(things):
        for place, ground in enumerate(GROUNDS):
            colour = list(COLOURS)[(number + place) % len(COLOURS)]
            yield SceneRequest(
                (Phrase(thing),),
                ground=ground,
                ground_colour="" if ground in MATERIALS else colour,
            )


_POSSIBLE: dict[str, Callable[[Things], Iterator[SceneRequest]]] = {
    "single": _singles,
    "pair": _pairs,
    "count": _counts,
    "colour": _colours,
    "place": _places,
    "relation": _relations,
    "ground": _grounds,
}
