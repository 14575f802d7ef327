"""Scenes as facts: what stands where, in which colour, on which ground; and what can be said of it.

A scene is drawn from a seeded generator on the CPU and holds no pixels: `mini.compose` renders a
batch of them on any device. Some combinations are held out: `Scenes.draw` never makes them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from asyncdiff_cli.engine.rewards.world.grammar import OPPOSITE, Phrase, SceneRequest
from asyncdiff_cli.engine.rewards.world.held_out import is_unseen
from asyncdiff_cli.engine.rewards.world.vocabulary import (
    COLOURS,
    GROUNDS,
    HUES,
    ITEM_COLOURS,
    MATERIALS,
    NATURAL,
    PATTERNS,
    THING_PLACES,
)
from mini.art import Drawing

MOST = 4  # things in a scene
NEAR = 25.0  # degrees of hue within which a natural colour may be called by a name
STYLE_WEIGHTS = {"3d": 1.0, "flat": 0.5, "noto": 0.4, "contrast": 0.15}
MIRRORED = 0.25  # share of the things that are
TURN = 5.0  # degrees that a thing may be turned by, either way
NUMBERS_PER_GROUND = 12  # random numbers in [0, 1) that a ground is made from


@dataclass(frozen=True)
class Item:
    """One thing in a scene. Lengths are shares of the picture's side; ``y`` points down."""

    drawing: int
    thing: str
    colour: str
    looks: str  # the colour that one sees in it, "" where a natural one is near a named one
    size: str  # "small", "big" or neither, as a caption may say
    side: float
    x: float
    y: float
    angle: float  # degrees
    mirrored: bool


@dataclass(frozen=True)
class Scene:
    """What a picture shows. ``kind`` is one of `KINDS`."""

    kind: str
    items: tuple[Item, ...]
    place: str
    relation: str  # of the first item, seen from the second
    ground: str
    ground_colour: str
    numbers: tuple[float, ...]  # `NUMBERS_PER_GROUND` of them
    noise: int  # seed of the ground's noise
    light: tuple[float, float, float]  # offset (x, y) and darkness of the shadows

    @cached_property
    def request(self) -> SceneRequest:
        """Everything that a caption can say."""
        phrases: list[Phrase] = []
        for item in self.items:
            colour = "" if item.colour == NATURAL else item.colour
            if phrases and phrases[-1].thing == item.thing:
                phrases[-1] = Phrase(item.thing, phrases[-1].count + 1, item.size, colour)
            else:
                phrases.append(Phrase(item.thing, 1, item.size, colour))
        return SceneRequest(
            tuple(phrases), self.place, self.relation, self.ground, self.ground_colour
        )


KINDS = {
    "single": 0.40,  # one thing anywhere
    "place": 0.10,  # one thing at a named place
    "pair": 0.14,  # two things beside or above each other
    "relation": 0.16,  # the same, and the caption may say how
    "count": 0.14,  # two to four of one thing
    "mixed": 0.06,  # two of one thing and one of another
}
"""Shares of the scenes."""


def _natural_look(drawing: Drawing) -> str:
    """`NATURAL`, or "" for a drawing whose own colour could be called by a name."""
    if drawing.hue is None or drawing.style == "contrast":  # white paper
        return NATURAL
    turns = (abs((drawing.hue - hue + 180) % 360 - 180) for hue, _ in HUES.values())
    return "" if min(turns) < NEAR else NATURAL


class Scenes:
    """Draws scenes of the things in ``drawings``.

    Args:
        drawings: as `mini.art.Sprites` has them.
        things: names to choose from; None for all that are drawn.
    """

    def __init__(self, drawings: Sequence[Drawing], things: Sequence[str] | None = None) -> None:
        self.drawings = drawings
        self.by_thing: dict[str, list[int]] = {}
        for index, drawing in enumerate(drawings):
            if things is None or drawing.thing in things:
                self.by_thing.setdefault(drawing.thing, []).append(index)
        self.things = list(self.by_thing)
        self.colourable = {
            thing: [index for index in several if drawings[index].hue is not None]
            for thing, several in self.by_thing.items()
        }
        self._looks = [_natural_look(drawing) for drawing in drawings]

    def draw(self, rng: random.Random) -> Scene:
        """A random training scene."""
        while True:
            kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
            scene = self.compose(self._ask(kind, rng), rng, kind)
            if not is_unseen(scene.request):
                return scene

    def _ask(self, kind: str, rng: random.Random) -> SceneRequest:
        """What a scene of ``kind`` is to show; the ground is left open."""
        if kind == "count":
            phrases = (self._phrase(rng, rng.choice((2, 2, 3, 3, 4))),)
        elif kind in ("single", "place"):
            phrases = (self._phrase(rng),)
        else:
            first, second = self._phrase(rng, 1 + (kind == "mixed")), self._phrase(rng)
            while second.thing == first.thing:
                second = self._phrase(rng)
            phrases = (first, second) if rng.random() < 0.5 else (second, first)
        place = rng.choice(list(PLACE_CENTRES)) if kind == "place" else ""
        relation = rng.choice(list(OPPOSITE)) if kind in ("pair", "relation") else ""
        return SceneRequest(phrases, place, relation)

    def _phrase(self, rng: random.Random, count: int = 1) -> Phrase:
        thing = rng.choice(self.things)
        colour = ""
        if rng.random() < 0.35 and self.colourable[thing]:
            colour = rng.choice(list(HUES))
        size = rng.choice(("small", "big")) if rng.random() < 0.3 and count == 1 else ""
        return Phrase(thing, count, size, colour)

    def compose(self, request: SceneRequest, rng: random.Random, kind: str = "") -> Scene:
        """A scene that shows ``request``; what it leaves open is chosen at random.

        Raises:
            ValueError: no drawing of a thing can take the colour that is asked for, or more than
                `MOST` things are.
        """
        count = sum(phrase.count for phrase in request.phrases)
        if count > MOST:
            raise ValueError(f"a scene holds {MOST} things, not {count}")
        spots = _spots(request, count, rng)
        items = []
        for phrase in request.phrases:
            drawings = (self.colourable if phrase.colour else self.by_thing)[phrase.thing]
            if not drawings:
                raise ValueError(f"no drawing of {phrase.thing!r} takes a colour")
            same = self._drawing(drawings, rng)  # several of a thing mostly look alike
            for _ in range(phrase.count):
                drawing = same if rng.random() < 0.8 else self._drawing(drawings, rng)
                looks = phrase.colour or self._looks[drawing]
                items.append(_place(phrase, drawing, looks, spots.pop(0), rng))
        ground = request.ground or rng.choice(MATERIALS if rng.random() < 0.55 else PATTERNS)
        colour = "" if ground in MATERIALS else request.ground_colour or rng.choice(list(COLOURS))
        angle = rng.uniform(-0.035, 0.035)
        return Scene(
            kind,
            tuple(items),
            request.place,
            request.relation,
            ground,
            colour,
            tuple(rng.random() for _ in range(NUMBERS_PER_GROUND)),
            rng.getrandbits(31),
            (angle, rng.uniform(0.015, 0.04), rng.uniform(0.2, 0.5)),
        )

    def _drawing(self, drawings: Sequence[int], rng: random.Random) -> int:
        weights = [STYLE_WEIGHTS[self.drawings[index].style] for index in drawings]
        return rng.choices(drawings, weights)[0]

    def facts(self, scene: Scene, rng: random.Random) -> SceneRequest:
        """What a caption of ``scene`` says: the things, and a random part of the rest."""
        whole = scene.request
        phrases = tuple(
            Phrase(
                p.thing,
                p.count,
                p.size if rng.random() < 0.75 else "",
                p.colour if rng.random() < 0.9 else "",
            )
            for p in whole.phrases
        )
        relation = whole.relation if scene.kind == "relation" and rng.random() < 0.85 else ""
        if len(phrases) == 2 and rng.random() < 0.5 and (relation or scene.kind != "relation"):
            phrases, relation = phrases[::-1], OPPOSITE.get(relation, "")
        ground = rng.random() < 0.75
        return SceneRequest(
            phrases,
            whole.place if rng.random() < 0.9 else "",
            relation,
            whole.ground if ground else "",
            whole.ground_colour if ground else "",
        )


PLACE_CENTRES = {
    "left": (0.27, 0.5),
    "right": (0.73, 0.5),
    "top": (0.5, 0.27),
    "bottom": (0.5, 0.73),
    "middle": (0.5, 0.5),
}
"""Where the centre (x, y) of a thing at a named place lies."""

Spot = tuple[float, float, float]
"""A centre (x, y) and the largest side that fits there."""

JITTER = 0.015  # of a centre, either way
ALONE_JITTER = 0.04  # of the centre of a thing that has the picture to itself


def _spots(request: SceneRequest, count: int, rng: random.Random) -> list[Spot]:
    """A place and a room for each of ``count`` things, in the order of the phrases.

    Few places with a little jitter: a transformer with absolute positions learns what a thing looks
    like at each of them by itself.
    """
    if request.place:
        spots = [(*PLACE_CENTRES[request.place], 0.85 if request.place == "middle" else 0.52)]
    elif count == 1:
        spots = [(0.5, 0.5, 0.9)]
    elif count == 2:
        relation = request.relation or rng.choice(list(OPPOSITE))
        ends = (0.26, 0.74) if relation in ("left", "above") else (0.74, 0.26)
        flat = relation in ("left", "right")
        spots = [(end, 0.5, 0.48) if flat else (0.5, end, 0.48) for end in ends]
    else:
        cells = [(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)]
        if count == 3:
            cells = rng.choice(([(0.5, 0.26), *cells[2:]], [*cells[:2], (0.5, 0.74)]))
        rng.shuffle(cells)
        spots = [(x, y, 0.46) for x, y in cells]
    most = ALONE_JITTER if count == 1 and not request.place else JITTER
    return [(x + rng.uniform(-most, most), y + rng.uniform(-most, most), r) for x, y, r in spots]


SHARES = {"small": (0.5, 0.56), "": (0.76, 0.84), "big": (0.96, 1.0)}
"""How much of its room a thing fills."""


def _place(phrase: Phrase, drawing: int, looks: str, spot: Spot, rng: random.Random) -> Item:
    x, y, room = spot
    side = room * rng.uniform(*SHARES[phrase.size])
    inside = [min(max(centre, side / 2 + 0.01), 1 - side / 2 - 0.01) for centre in (x, y)]
    return Item(
        drawing,
        phrase.thing,
        phrase.colour or NATURAL,
        looks,
        phrase.size,
        side,
        *inside,
        angle=rng.uniform(-TURN, TURN),
        mirrored=rng.random() < MIRRORED,
    )


@dataclass(frozen=True)
class Batch:
    """Scenes as tensors; those of items are [B, `MOST`], and -1 stands where no item is."""

    drawing: Tensor
    thing: Tensor
    colour: Tensor  # index into `ITEM_COLOURS`
    looks: Tensor  # the same, as it is seen; -1 where that is open
    side: Tensor
    x: Tensor
    y: Tensor
    angle: Tensor  # radians
    mirrored: Tensor
    ground: Tensor  # [B], index into `GROUNDS`
    ground_colour: Tensor  # [B], index into `COLOURS`, -1 for a material
    numbers: Tensor  # [B, `NUMBERS_PER_GROUND`]
    noise: Tensor  # [B], int64
    light: Tensor  # [B, 3]

    def __len__(self) -> int:
        return len(self.ground)

    def to(self, device: torch.device) -> Batch:
        moved = (getattr(self, f.name).to(device, non_blocking=True) for f in fields(self))
        return Batch(*moved)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        return Batch(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> Batch:
        def items(read, empty=0.0) -> Tensor:
            rows = [
                [*map(read, scene.items), *[empty] * (MOST - len(scene.items))] for scene in scenes
            ]
            return torch.tensor(rows)

        grounds, colours = list(GROUNDS), list(COLOURS)
        return cls(
            items(lambda item: item.drawing, -1),
            items(lambda item: THING_PLACES[item.thing], -1),
            items(lambda item: ITEM_COLOURS.index(item.colour), -1),
            items(lambda item: ITEM_COLOURS.index(item.looks) if item.looks else -1, -1),
            items(lambda item: item.side),
            items(lambda item: item.x),
            items(lambda item: item.y),
            items(lambda item: item.angle * torch.pi / 180),
            items(lambda item: item.mirrored, False),
            torch.tensor([grounds.index(scene.ground) for scene in scenes]),
            torch.tensor(
                [colours.index(s.ground_colour) if s.ground_colour else -1 for s in scenes]
            ),
            torch.tensor([scene.numbers for scene in scenes]),
            torch.tensor([scene.noise for scene in scenes]),
            torch.tensor([scene.light for scene in scenes]),
        )
