"""Platt scaling of the judge: what it reports as probable must come true as often."""

import random

import pytest
import torch
from torch import nn

from asyncdiff_cli.engine.rewards.world.judge import Found, JudgeNet, find
from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, GROUNDS, ITEM_COLOURS, THINGS
from mini.compose import Composer
from mini.probabilities import NEAR, fit, observe, rescale, scaled
from mini.scenes import Batch, Scenes
from mini.settings import Settings


def test_the_factor_and_offset_of_over_shy_logits_are_found() -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(20_000)
    truth = (torch.rand(20_000) < logits.sigmoid()).float()
    factor, offset = fit([((logits - 3) / 4, truth)])
    assert factor == pytest.approx(4, rel=0.05)
    assert offset == pytest.approx(3, rel=0.05)


def test_the_temperature_of_classes_is_found_and_has_no_offset() -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(20_000, 5)
    truth = torch.multinomial(logits.softmax(-1), 1)[:, 0]
    halves = list(zip((logits / 3).chunk(2), truth.chunk(2), strict=True))
    assert fit(halves) == (pytest.approx(3, rel=0.05), 0.0)


def test_only_the_outputs_asked_for_are_rescaled() -> None:
    layer, x = nn.Linear(4, 5), torch.randn(3, 4)
    before = layer(x).detach()
    rescale(layer, torch.tensor([1, 3]), 2.0, -1.0)
    after = layer(x).detach()
    torch.testing.assert_close(after[:, [1, 3]], 2 * before[:, [1, 3]] - 1)
    torch.testing.assert_close(after[:, [0, 2, 4]], before[:, [0, 2, 4]], rtol=0, atol=0)


def test_the_strongest_find_near_a_centre_stands_for_it(scenes: Scenes) -> None:
    scene = next(s for s in map(scenes.draw, map(random.Random, range(99))) if len(s.items) == 2)
    truth = Batch.of([scene])
    (x0, y0), (x1, y1) = ((float(truth.x[0, n]), float(truth.y[0, n])) for n in range(2))
    places = [(x1, y1), (x0, y0), (x0 + NEAR / 2, y0), (x0, y0 + 2 * NEAR), (x1, y1)]
    found = Found(
        presence=torch.tensor([0.9, 0.6, 0.5, 0.2, 0.0]),  # as `find` sorts them; the last is none
        thing=torch.eye(len(THINGS))[:5],
        colour=torch.full((5, len(ITEM_COLOURS)), 1 / len(ITEM_COLOURS)),
        x=torch.tensor([x for x, _ in places]),
        y=torch.tensor([y for _, y in places]),
        ground=torch.full((len(GROUNDS),), 1 / len(GROUNDS)),
        ground_colour=torch.full((len(COLOURS),), 1 / len(COLOURS)),
    )
    seen = observe(found, truth)
    logits, here = seen["presence"]
    torch.testing.assert_close(logits, torch.tensor([0.9, 0.6, 0.5, 0.2]).logit())
    assert here.tolist() == [1, 1, 0, 0]
    things, right = seen["thing"]
    assert things.argmax(1).tolist() == [0, 1]  # the finds in their order
    assert right.tolist() == truth.thing[0, [1, 0]].tolist()
    assert seen["ground"][1].tolist() == truth.ground.tolist()


def test_a_judge_is_as_sure_as_it_is_right(scenes: Scenes, composer: Composer) -> None:
    """Of scenes that it was fitted on, and with nothing else of it changed."""
    torch.manual_seed(0)
    settings = Settings.smoke()
    judge = JudgeNet(settings.judge.widths).eval()
    fitted = scaled(judge, scenes, composer, settings)
    rng = random.Random(f"{settings.judge.seed}/probabilities")
    drawn = [scenes.draw(rng) for _ in range(settings.judge.fitted)]
    chances, truths = [], []
    for start in range(0, len(drawn), settings.judge.batch):
        truth = Batch.of(drawn[start : start + settings.judge.batch])
        with torch.no_grad():
            before, after = judge(composer.render(truth)), fitted(composer.render(truth))
        torch.testing.assert_close(after.features, before.features, rtol=0, atol=0)
        torch.testing.assert_close(after.centre, before.centre)
        for number, each in enumerate(find(after)):
            logits, here = observe(each, truth[number : number + 1])["presence"]
            chances.append(logits.sigmoid())
            truths.append(here)
    chance, right = torch.cat(chances).mean(), torch.cat(truths).mean()
    torch.testing.assert_close(chance, right, rtol=1e-3, atol=1e-4)
