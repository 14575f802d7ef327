import numpy as np
import pytest
import torch

from asyncdiff_cli.engine.evaluation.set_metrics.fid_judge import FIDJudge
from mini.measures import distance, fine_detail, spearman, summary


def test_fine_detail_is_that_of_the_finer_half() -> None:
    drawn = torch.tensor([[0.0, 0.0, 2.0, 4.0], [9.0, 9.0, 0.0, 2.0]])
    row = fine_detail(drawn, torch.tensor([5.0, 5.0, 1.0, 3.0]))
    assert (row["mean"], row["n"]) == (0.0, 2)


def test_a_distance_has_the_error_that_its_pictures_give_it() -> None:
    drawn = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    statistics = {"mean": torch.tensor([1.0, 0.0, 0.0]), "covariance": torch.eye(3)}
    row = distance(FIDJudge, drawn, {name: own.double() for name, own in statistics.items()})
    assert row["mean"] == pytest.approx(1, abs=0.15)
    assert row["sd"] == pytest.approx(2 / 400**0.5, rel=0.2)


def test_spearman_knows_ties_and_reads_ranks_only() -> None:
    one = np.array([1.0, 2.0, 2.0, 3.0])
    assert spearman(one, np.exp(one)) == pytest.approx(1.0)
    assert spearman(one, -one) == pytest.approx(-1.0)
    assert spearman(np.arange(5.0), np.array([0.0, 2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.8)


def test_a_summary_brackets_its_mean() -> None:
    row = summary([0.0, 1.0] * 50)
    low, high = row["interval"]
    assert row["mean"] == 0.5
    assert 0.38 < low < 0.5 < high < 0.62
