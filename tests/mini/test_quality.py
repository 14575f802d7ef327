"""The degradations, the ranking loss and the measure of ``reward_quality``."""

import numpy as np
import pytest
import torch

from mini.data import Composer
from mini.quality import blur, degrade, noise, rank_loss, ringing, split
from mini.rewards_quality import Ladder, spearman


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    grey = torch.zeros(3, 128, 128)
    noisy = noise(grey, 10.0, np.random.default_rng(0))
    assert noisy.std().item() * 127.5 == pytest.approx(10.0, rel=0.02)


def test_blur_and_ringing_keep_the_mean_and_take_the_finest_detail() -> None:
    board = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(3, -1, -1)
    rng = np.random.default_rng(0)
    for softened in (blur(board, 2.0, rng), ringing(board, 0.5, rng)):
        inner = softened[:, 8:-8, 8:-8]
        assert inner.mean().item() == pytest.approx(0.5, abs=1e-3)
        assert inner.std() < 0.02


def test_ringing_overshoots_at_an_edge_and_blur_does_not() -> None:
    step = torch.zeros(3, 64, 64)
    step[:, :, 16:48] = 0.5
    rng = np.random.default_rng(0)
    assert ringing(step, 0.7, rng).max() > 0.53
    assert blur(step, 2.0, rng).max() <= 0.5 + 1e-5


def test_severity_zero_changes_nothing() -> None:
    picture = torch.randint(0, 256, (3, 16, 16)).float() / 127.5 - 1
    for kind in ("noise", "blur", "ringing"):
        unchanged = degrade(kind, picture, 0.0, np.random.default_rng(0))
        torch.testing.assert_close(unchanged, picture)


def test_the_loss_is_lower_for_the_right_order() -> None:
    severities = torch.tensor([[0.0, 0.5, 1.0, 1.0]])
    right = rank_loss(torch.tensor([[2.0, 0.0, -2.0, -2.0]]), severities)
    wrong = rank_loss(torch.tensor([[-2.0, 0.0, 2.0, 2.0]]), severities)
    assert right["loss"] < 0.2 < wrong["loss"]
    assert (right["right"], wrong["right"]) == (1.0, 0.0)


def test_spearman_knows_ties_and_reads_ranks_only() -> None:
    one = np.array([1.0, 2.0, 2.0, 3.0])
    assert spearman(one, np.exp(one)) == pytest.approx(1.0)
    assert spearman(one, -one) == pytest.approx(-1.0)
    assert spearman(np.arange(5.0), np.array([0.0, 2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.8)


def test_a_ladder_that_falls_with_severity_is_ordered_perfectly() -> None:
    severities = np.tile(np.arange(8.0), (16, 1))
    ladder = Ladder(-severities, severities)
    assert ladder.within()["mean"] == pytest.approx(1.0)
    assert ladder.across()["mean"] == pytest.approx(1.0)
    assert Ladder(severities, severities).within()["mean"] == pytest.approx(-1.0)


def test_things_are_measured_or_trained_on_and_never_both(composer: Composer) -> None:
    seen, unseen = split(composer.concepts, 0.1)
    assert len(unseen) == 2
    assert {c.name for c in seen} | {c.name for c in unseen} == {c.name for c in composer.concepts}
    assert not {c.name for c in seen} & {c.name for c in unseen}
