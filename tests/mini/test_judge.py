import random

import pytest
import torch

from asyncdiff_cli.engine.rewards.world.answers import (
    answers,
    at_least,
    exactly,
    is_right,
    mean_probability,
)
from asyncdiff_cli.engine.rewards.world.grammar import Phrase, SceneRequest, parse
from asyncdiff_cli.engine.rewards.world.held_out import is_unseen
from asyncdiff_cli.engine.rewards.world.judge import Found, JudgeNet, find
from asyncdiff_cli.engine.rewards.world.judge import Seen as SeenType
from asyncdiff_cli.engine.rewards.world.questions import NEEDS, make_questions
from asyncdiff_cli.engine.rewards.world.vocabulary import (
    COLOURS,
    GROUNDS,
    ITEM_COLOURS,
    THING_PLACES,
    THINGS,
)
from mini.judge import heat, losses
from mini.scenes import Batch, Scenes


def found(*things: tuple[str, float, float, str], ground: str = "grass") -> Found:
    """A judge that is sure of things at (x, y) with a colour."""
    size = len(things)
    thing, colour = torch.zeros(size, len(THINGS)), torch.zeros(size, len(ITEM_COLOURS))
    for index, (name, _, _, tint) in enumerate(things):
        thing[index, THING_PLACES[name]] = 1
        colour[index, ITEM_COLOURS.index(tint)] = 1
    x, y = torch.tensor([t[1] for t in things]), torch.tensor([t[2] for t in things])
    seen = torch.zeros(len(GROUNDS))
    seen[GROUNDS.index(ground)] = 1
    return Found(torch.ones(size), thing, colour, x, y, seen, torch.ones(len(COLOURS)) / 10)


SCENE = found(("cat", 0.2, 0.5, "natural"), ("dog", 0.8, 0.5, "red"), ("dog", 0.5, 0.2, "red"))


@pytest.mark.parametrize(
    ("prompt", "right"),
    [
        ("a cat", 1), ("a fox", 0), ("two dogs", 1), ("a cat left of two red dogs on grass", 1),
        ("two red dogs and a cat in the grass", 1), ("a cat on the left", 1),
    ],
)  # fmt: skip
def test_a_prompt_is_answered_from_what_is_found(prompt: str, right: float) -> None:
    assert mean_probability(parse(prompt), SCENE) == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize(
    ("prompt", "wrong"),
    [
        ("three dogs", "counts"), ("a blue dog", "colours"), ("a cat right of a dog", "relations"),
        ("a cat at the top", "places"), ("a cat on sand", "ground"), ("a cat and a fox", "things"),
    ],
)  # fmt: skip
def test_the_question_that_is_wrong_is_named(prompt: str, wrong: str) -> None:
    own = [a for a in answers(parse(prompt), SCENE) if a.category == wrong]
    assert min(a.probability for a in own) == pytest.approx(0, abs=1e-6)
    assert mean_probability(parse(prompt), SCENE) < 1


def test_counts_are_the_poisson_binomial() -> None:
    chances = torch.tensor([0.5, 0.2, 1.0])
    assert exactly(chances, 1) == pytest.approx(0.5 * 0.8)
    assert exactly(chances, 2) == pytest.approx(0.5 * 0.8 + 0.5 * 0.2)
    assert at_least(chances, 3) == pytest.approx(0.1)
    assert at_least(chances, 1) == pytest.approx(1.0)


def test_peaks_are_found_where_the_truth_is(scenes: Scenes) -> None:
    rng = random.Random(0)
    drawn = [scenes.draw(rng) for _ in range(6)]
    truth = Batch.of(drawn)
    presence = heat(truth).amax(1).clamp(1e-4, 1 - 1e-4).logit()
    zeros = [torch.zeros(6, n, 16, 16) for n in (len(THINGS), len(ITEM_COLOURS), 2)]
    whole = torch.zeros(6, len(GROUNDS)), torch.zeros(6, len(COLOURS)), torch.zeros(6, 4)
    for scene, each in zip(drawn, find(SeenType(presence, *zeros, *whole)), strict=True):
        sure = torch.stack((each.x, each.y), 1)[each.presence > 0.9].tolist()
        assert len(sure) == len(scene.items)
        for item in scene.items:
            assert min(max(abs(item.x - x), abs(item.y - y)) for x, y in sure) <= 1 / 32 + 1e-6


def test_the_loss_falls_on_a_batch_that_is_repeated(scenes: Scenes) -> None:
    torch.manual_seed(0)
    rng = random.Random(0)
    truth = Batch.of([scenes.draw(rng) for _ in range(4)])
    pictures = torch.rand(4, 3, 128, 128) * 2 - 1
    model = JudgeNet((4, 4, 8, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    values = []
    for _ in range(8):
        loss = losses(model(pictures), truth)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


def test_questions_ask_for_what_was_never_trained_on(scenes: Scenes) -> None:
    questions = make_questions(scenes.colourable, 3, 0)
    assert {question.category for question in questions} <= set(NEEDS)
    for question in questions:
        if question.category in ("pair", "count", "colour", "relation"):
            assert is_unseen(question.request)
        assert parse(question.prompt) == question.request
    single = next(q for q in questions if q.category == "single")
    name = single.request.phrases[0].thing
    assert is_right(single, found((name, 0.5, 0.5, "natural")))
    assert not is_right(single, found(("skull", 0.5, 0.5, "natural")))


def test_an_unasked_request_has_no_question_beyond_things() -> None:
    kinds = [a.category for a in answers(SceneRequest((Phrase("cat"),)), SCENE)]
    assert kinds == ["things", "counts"]
