"""Combinations that no training scene shows: what is drawn of them was not learned by heart."""

from __future__ import annotations

import hashlib
from functools import cache

from asyncdiff_cli.engine.rewards.world.grammar import OPPOSITE, SceneRequest
from asyncdiff_cli.engine.rewards.world.vocabulary import NATURAL

HELD_OUT_SHARE = 0.1
"""Share of each kind of combination."""


def held_out(*parts: str) -> bool:
    """Whether this combination is kept from training; the same answer on every machine."""
    digest = hashlib.sha256("|".join(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


@cache
def pair_held_out(first: str, second: str) -> bool:
    return held_out("pair", *sorted((first, second)))


@cache
def relation_held_out(first: str, relation: str, second: str) -> bool:
    """Whether a relation is held out: one fact in both wordings, as left is the other's right."""
    if relation in ("right", "below"):
        first, relation, second = second, OPPOSITE[relation], first
    return held_out("relation", first, relation, second)


@cache
def count_held_out(thing: str, count: int) -> bool:
    return count > 1 and held_out("count", thing, str(count))


@cache
def colour_held_out(thing: str, colour: str) -> bool:
    return colour != NATURAL and held_out("colour", thing, colour)


def is_unseen(request: SceneRequest) -> bool:
    """Whether ``request`` names or implies a combination that no training scene shows."""
    names = [phrase.thing for phrase in request.phrases]
    if any(
        colour_held_out(p.thing, p.colour or NATURAL) or count_held_out(p.thing, p.count)
        for p in request.phrases
    ):
        return True
    if len(names) < 2:
        return False
    if pair_held_out(*names[:2]):
        return True
    return bool(request.relation) and relation_held_out(names[0], request.relation, names[1])
