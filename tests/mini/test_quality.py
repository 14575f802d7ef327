"""The degradations and the ranking loss of ``reward_quality``."""

import random

import pytest
import torch

from mini.compose import Composer
from mini.quality import Groups, blur, noise, rank_loss, ringing, split
from mini.scenes import Batch, Scenes
from mini.settings import Settings


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_noise_has_the_deviation_that_was_asked_for(generator: torch.Generator) -> None:
    noisy = noise(torch.zeros(2, 3, 128, 128), torch.tensor([10.0, 2.0]), generator)
    assert noisy[0].std().item() * 127.5 == pytest.approx(10.0, rel=0.02)
    assert noisy[1].std().item() * 127.5 == pytest.approx(2.0, rel=0.02)


def test_blur_and_ringing_keep_the_mean_and_take_the_finest_detail(
    generator: torch.Generator,
) -> None:
    board = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(1, 3, -1, -1)
    for softened in (blur(board, torch.tensor([2.0]), generator),
                     ringing(board, torch.tensor([0.5]), generator)):  # fmt: skip
        inner = softened[..., 8:-8, 8:-8]
        assert inner.mean().item() == pytest.approx(0.5, abs=1e-3)
        assert inner.std() < 0.02


def test_ringing_overshoots_at_an_edge_and_blur_does_not(generator: torch.Generator) -> None:
    step = torch.zeros(1, 3, 64, 64)
    step[..., 16:48] = 0.5
    assert ringing(step, torch.tensor([0.7]), generator).max() > 0.53
    assert blur(step, torch.tensor([2.0]), generator).max() <= 0.5 + 1e-5


def test_severity_zero_changes_nothing(generator: torch.Generator) -> None:
    pictures = torch.rand(2, 3, 32, 32)
    for degrade in (noise, blur, ringing):
        unchanged = degrade(pictures, torch.zeros(2), generator)
        torch.testing.assert_close(unchanged, pictures)


def test_the_loss_is_lower_for_the_right_order() -> None:
    severities = torch.tensor([[0.0, 0.5, 1.0, 1.0]])
    right = rank_loss(torch.tensor([[2.0, 0.0, -2.0, -2.0]]), severities)
    wrong = rank_loss(torch.tensor([[-2.0, 0.0, 2.0, 2.0]]), severities)
    assert right["loss"] < 0.2 < wrong["loss"]
    assert (right["right"], wrong["right"]) == (1.0, 0.0)


def test_things_are_measured_or_trained_on_and_never_both(scenes: Scenes) -> None:
    seen, unseen = split(scenes.things)
    assert len(unseen) == 2
    assert sorted(seen + unseen) == sorted(scenes.things)


def test_a_group_of_ladders_shows_each_on_two_rungs(scenes: Scenes, composer: Composer) -> None:
    settings = Settings.smoke()
    own, rungs = settings.quality, 3
    ladders = torch.arange(5 * rungs, dtype=torch.uint8).view(5, rungs, 1, 1, 1)
    ladders = ladders.expand(-1, -1, 3, 128, 128)
    groups = Groups(composer, lambda kind, pictures, *_: pictures, ladders, settings)
    rng = random.Random(0)
    batch = Batch.of([scenes.draw(rng) for _ in range(own.groups * own.bases)])
    pictures, severities = groups(batch)
    assert pictures.shape == (own.groups + own.ladder_groups, 2 * own.bases, 3, 128, 128)
    shown = (pictures[own.groups :] + 1).mul(127.5).round()[..., 0, 0, 0]
    torch.testing.assert_close(severities[own.groups :], (shown % rungs) / (rungs - 1))
    pairs = shown.view(-1, 2)
    assert torch.equal(pairs[:, 0] // rungs, pairs[:, 1] // rungs)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    again, _ = groups(batch)
    assert torch.equal(again, pictures)
