"""Facts of a prompt exchanged for wrong ones, which the prompt then says of the same picture."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from asyncdiff_cli.engine.rewards.world.grammar import PLACES, Phrase, SceneRequest
from asyncdiff_cli.engine.rewards.world.vocabulary import (
    COLOURS,
    GROUNDS,
    HUES,
    MATERIALS,
    THING_PLACES,
)


def contradict(request: SceneRequest, rng: random.Random) -> SceneRequest:
    """``request`` with one fact exchanged for another, so that it is wrong of the same picture."""
    possible = [name for name in CONTRADICTIONS if can_contradict(request, name)]
    return CONTRADICTIONS[rng.choice(possible)](request, rng)


def can_contradict(request: SceneRequest, name: str) -> bool:
    """Whether ``request`` states a fact of this kind, a key of `CONTRADICTIONS`."""
    if name == "order":
        return len(request.phrases) == 2 and (bool(request.relation) or _attributes(request))
    stated = {
        "colour": any(phrase.colour for phrase in request.phrases),
        "place": bool(request.place),
        "ground": bool(request.ground),
    }
    return stated.get(name, True)


def _attributes(request: SceneRequest) -> bool:
    """Whether exchanging the names of the two things changes what is asked for."""
    first, second = request.phrases
    return (first.count, first.size, first.colour) != (second.count, second.size, second.colour)


def _exchange(request: SceneRequest, old: Phrase, new: Phrase) -> SceneRequest:
    phrases = tuple(new if phrase is old else phrase for phrase in request.phrases)
    return replace(request, phrases=phrases)


def _another(options: Sequence, own: Sequence, rng: random.Random):
    return rng.choice([option for option in options if option not in own])


def _other_thing(request: SceneRequest, rng: random.Random) -> SceneRequest:
    shown, own = [phrase.thing for phrase in request.phrases], rng.choice(request.phrases)
    return _exchange(request, own, replace(own, thing=_another(list(THING_PLACES), shown, rng)))


def _other_count(request: SceneRequest, rng: random.Random) -> SceneRequest:
    own = rng.choice(request.phrases)
    count = _another((1, 2, 3, 4), (own.count,), rng)
    return _exchange(request, own, replace(own, count=count, size=""))


def _other_colour(request: SceneRequest, rng: random.Random) -> SceneRequest:
    own = rng.choice([phrase for phrase in request.phrases if phrase.colour])
    colour = _another(list(HUES), (own.colour,), rng)
    return _exchange(request, own, replace(own, colour=colour))


def _other_order(request: SceneRequest, rng: random.Random) -> SceneRequest:
    """Each thing takes the other's place, count and colour."""
    first, second = request.phrases
    swapped = replace(first, thing=second.thing), replace(second, thing=first.thing)
    return replace(request, phrases=swapped)


def _other_place(request: SceneRequest, rng: random.Random) -> SceneRequest:
    return replace(request, place=_another(list(PLACES), (request.place,), rng))


def _other_ground(request: SceneRequest, rng: random.Random) -> SceneRequest:
    if request.ground_colour and rng.random() < 0.5:
        colour = _another(list(COLOURS), (request.ground_colour,), rng)
        return replace(request, ground_colour=colour)
    ground = _another(GROUNDS, (request.ground,), rng)
    colour = "" if ground in MATERIALS else request.ground_colour or rng.choice(list(COLOURS))
    return replace(request, ground=ground, ground_colour=colour)


CONTRADICTIONS: dict[str, Callable[[SceneRequest, random.Random], SceneRequest]] = {
    "thing": _other_thing,
    "count": _other_count,
    "colour": _other_colour,
    "order": _other_order,
    "place": _other_place,
    "ground": _other_ground,
}
