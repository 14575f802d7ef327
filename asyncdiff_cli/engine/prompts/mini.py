"""Mini's own prompts, composed of words that it knows, in splits with nothing in common."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace

from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY
from asyncdiff_cli.engine.backbones.vocabulary import Vocabulary
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.prompts.split import SPLITS, is_held_out
from asyncdiff_cli.engine.rewards.world.grammar import SceneRequest, say
from asyncdiff_cli.engine.rewards.world.held_out import is_unseen
from asyncdiff_cli.engine.rewards.world.questions import NEEDS, UNSEEN, Things, possible
from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, GROUNDS, MATERIALS, with_article

SET_SIZES = {"train": 8192, "validation": 1024}
TAG = 0.3
"""The share of things in a pair that go by another name, if they have one."""
VALIDATION_EVERY = 8
"""One in so many combinations of things and ground is for validation."""
EACH = {"train": 1170, "validation": 146}
"""Prompts of each category of the second edition."""
TURNS = 200
"""How often what is asked for may come again, on another ground."""

Captions = tuple[list[str], list[str]]
"""Texts, and the category of each; none for a set without."""


def second_edition(split: str) -> Captions:
    """Captions of the second world, as many of each category of `NEEDS`.

    Raises:
        AsyncDiffError: if mini's vocabulary is missing.
    """
    known = _vocabulary()
    found = compose({name: name in known.colourable for name in known.objects}, split, EACH[split])
    texts = sorted(found, key=_digest)
    return texts, [found[text] for text in texts]


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


def first_edition(split: str) -> Captions:
    """Captions of one thing or two on plain grounds, half of them with a ground and half without.

    The splits are disjoint in what is shown, whatever it is called and in whichever order. There
    are only some 2,900 ways to name one thing, so each half has all of them that it can, and is
    filled up with pairs.
    """
    known = _vocabulary()
    # of all of random's methods, only random() is promised to stay the same
    rng = random.Random(0)
    labels = list(known.objects)
    texts: list[str] = []
    for grounds in ([""], known.colours):
        half = {
            _caption([name], colour): None
            for label, others in known.objects.items()
            for name in (label, *others)
            for colour in grounds
            if _split([label], colour) == split
        }
        while len(half) < SET_SIZES[split] // 2:
            pair, colour = [_pick(labels, rng), _pick(labels, rng)], _pick(grounds, rng)
            if pair[0] != pair[1] and _split(pair, colour) == split:
                half[_caption([_name(label, known, rng) for label in pair], colour)] = None
        texts += half
    return sorted(texts, key=_digest), []


def _split(labels: Sequence[str], colour: str) -> str:
    return SPLITS[is_held_out("|".join((*sorted(labels), colour)), VALIDATION_EVERY)]


def _pick(items: Sequence[str], rng: random.Random) -> str:
    return items[int(rng.random() * len(items))]


def _name(label: str, known: Vocabulary, rng: random.Random) -> str:
    others = known.objects[label]
    return _pick(others, rng) if others and rng.random() < TAG else label


def _caption(names: Sequence[str], colour: str) -> str:
    ground = f" on {with_article(colour)} background" if colour else ""
    return " and ".join(map(with_article, names)) + ground
