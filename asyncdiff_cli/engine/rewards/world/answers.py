"""What the judge found in a picture, as answers to the questions that a prompt asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from asyncdiff_cli.engine.rewards.world.grammar import Phrase, SceneRequest
from asyncdiff_cli.engine.rewards.world.judge import Found
from asyncdiff_cli.engine.rewards.world.questions import Question
from asyncdiff_cli.engine.rewards.world.vocabulary import (
    COLOURS,
    GROUNDS,
    ITEM_COLOURS,
    THING_PLACES,
)

RIGHT = 0.5
"""An answer that the judge finds more probable than this is right."""

APART = 0.04  # of the side: a relation holds where centres are clearly farther apart than this


@dataclass(frozen=True)
class Answer:
    """The probability that what a prompt asks of ``category`` is in the picture."""

    category: str  # "things", "counts", "colours", "places", "relations" or "ground"
    probability: float


def answers(request: SceneRequest, found: Found) -> list[Answer]:
    """One for every question that ``request`` asks."""
    several = []
    for phrase in request.phrases:
        chances = _chances(phrase, found)
        several.append(Answer("things", at_least(chances, 1)))
        several.append(Answer("counts", exactly(chances, phrase.count)))
        if phrase.colour:
            coloured = chances * found.colour[:, ITEM_COLOURS.index(phrase.colour)]
            several.append(Answer("colours", at_least(coloured, phrase.count)))
    if request.place:
        there = _chances(request.phrases[0], found) * _inside(request.place, found)
        several.append(Answer("places", at_least(there, 1)))
    if request.relation:
        several.append(Answer("relations", _related(request, found)))
    if request.ground:
        ground = found.ground[list(GROUNDS).index(request.ground)]
        if request.ground_colour:
            ground = ground * found.ground_colour[list(COLOURS).index(request.ground_colour)]
        several.append(Answer("ground", float(ground)))
    return several


def mean_probability(request: SceneRequest, found: Found) -> float:
    """The mean over the questions, in [0, 1]."""
    several = answers(request, found)
    return sum(answer.probability for answer in several) / len(several)


def is_right(question: Question, found: Found) -> bool:
    """Whether the judge finds everything that the question's category is about."""
    asked = [a for a in answers(question.request, found) if a.category in question.needs]
    return all(answer.probability > RIGHT for answer in asked)


def _chances(phrase: Phrase, found: Found) -> Tensor:
    """[P]: the probability that each peak is the phrase's thing."""
    return found.presence * found.thing[:, THING_PLACES[phrase.thing]]


def counts(chances: Sequence[float]) -> list[float]:
    """The Poisson binomial distribution of how many of independent events happen."""
    distribution = [1.0]
    for chance in chances:
        stays = [(1 - chance) * p for p in distribution]
        moves = [chance * p for p in distribution]
        distribution = [a + b for a, b in zip([*stays, 0.0], [0.0, *moves], strict=True)]
    return distribution


def at_least(chances: Tensor, count: int) -> float:
    """The probability of so many or more, of independent things with such chances, [P]."""
    return sum(counts(chances.tolist())[count:])


def exactly(chances: Tensor, count: int) -> float:
    """The probability of just so many, of independent things with such chances, [P]."""
    return dict(enumerate(counts(chances.tolist()))).get(count, 0.0)


def _inside(place: str, found: Found) -> Tensor:
    x, y = found.x, found.y
    areas = {
        "left": x < 0.37,
        "right": x > 0.63,
        "top": y < 0.37,
        "bottom": y > 0.63,
        "middle": ((x - 0.5).abs() < 0.1) & ((y - 0.5).abs() < 0.1),
    }
    return areas[place].float()


def _related(request: SceneRequest, found: Found) -> float:
    """The best pair of peaks: both are what is asked for, and lie as asked."""
    first, second = (_chances(phrase, found) for phrase in request.phrases[:2])
    line = found.x if request.relation in ("left", "right") else found.y
    gap = line[None] - line[:, None]  # how much farther right or down the second is
    if request.relation in ("right", "below"):
        gap = -gap
    return float((first[:, None] * second[None] * (gap > APART)).max())
