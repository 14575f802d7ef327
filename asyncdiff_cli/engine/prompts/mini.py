"""Mini's own prompts, composed of words that it knows, in splits with nothing in common."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY
from asyncdiff_cli.engine.backbones.vocabulary import Vocabulary
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.prompts.split import is_held_out
from asyncdiff_cli.engine.rewards.world.grammar import SceneRequest, say
from asyncdiff_cli.engine.rewards.world.held_out import is_unseen
from asyncdiff_cli.engine.rewards.world.questions import NEEDS, UNSEEN, Things, possible
from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, GROUNDS, MATERIALS

VALIDATION_EVERY = 8
"""One in so many combinations of things and ground is for validation."""
EACH = {"train": 1170, "validation": 146}
"""Prompts of each category, in each split."""
EXAMPLES = {
    "prompts": ("a fox", "three apples", "a small red car", "a panda and a rose"),
    "places": ("a rocket on the left", "an owl at the top", "a red car left of a fox"),
    "grounds": ("a tiger on grass", "a rose on blue stripes", "a castle under a starry sky"),
}
"""What mini can be asked for."""
TURNS = 200
"""How often what is asked for may come again, on another ground."""


@lru_cache
def mini_captions(split: str) -> Mapping[str, str]:
    """Captions of mini's world with their categories, as many of each of `NEEDS`.

    Raises:
        AsyncDiffError: if mini's vocabulary is missing.
    """
    known = _vocabulary()
    found = compose({name: name in known.colourable for name in known.objects}, split, EACH[split])
    return MappingProxyType({text: found[text] for text in sorted(found, key=_digest)})


def compose(things: Things, split: str, count: int) -> dict[str, str]:
    """Compose at most `count` captions of each category, with it; half or more have a ground.

    Pairs, counts, colours and relations for validation are combinations that mini never saw.

    Args:
        things: what can be drawn; true of a thing that takes a colour.
    """
    found: dict[str, str] = {}
    for category in NEEDS:
        own = sorted(possible(category, things), key=lambda request: _digest(say(request)))
        wanted = len(found) + count
        for turn, request in ((turn, request) for turn in range(TURNS) for request in own):
            if len(found) == wanted:
                break
            shown = _grounded(request, turn)
            if _is_of(category, shown, split):
                wording = random.Random(_digest(f"{say(shown)} {turn}"))
                found.setdefault(say(shown, wording), category)
    return found


def _grounded(request: SceneRequest, turn: int) -> SceneRequest:
    """What is asked for, every second time on a ground."""
    numbers = _digest(f"{say(request)} {turn}")
    if request.ground or numbers[0] % 2:
        return request
    ground = GROUNDS[numbers[1] % len(GROUNDS)]
    colour = "" if ground in MATERIALS else list(COLOURS)[numbers[2] % len(COLOURS)]
    return replace(request, ground=ground, ground_colour=colour)


def _is_of(category: str, request: SceneRequest, split: str) -> bool:
    """Whether a request is of a split; a few are of none."""
    unseen, kept = is_unseen(request), is_held_out(say(request), VALIDATION_EVERY)
    if split == "train":
        return not (unseen or kept)
    return unseen if category in UNSEEN else kept


def _vocabulary() -> Vocabulary:
    known = Vocabulary.load(MINI_DIRECTORY)
    if known is None:
        raise AsyncDiffError(f"{MINI_DIRECTORY} lacks its vocabulary: install asyncdiff-cli again")
    return known


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
