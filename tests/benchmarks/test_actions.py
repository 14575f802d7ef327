"""The benchmark of actions: what it knows, and that its modules learn."""

import pytest
import torch

from asyncdiff_cli.engine.policies.actions import DEVIATION, SCALING, SPACING
from benchmarks import actions
from benchmarks.gaussian import moved
from benchmarks.learning import WORLD


def test_the_least_error_of_several_actions_is_known():
    alone = float(WORLD.error(WORLD.optimum(5)))
    assert WORLD.least_error(5, (DEVIATION,)) == pytest.approx(alone, rel=1e-4)
    both = WORLD.least_error(5, (DEVIATION, SCALING))
    assert both < 0.5 * alone
    scaled = WORLD.least_error(5, (SCALING,))
    generator = torch.manual_seed(0)
    for _ in range(50):
        values = torch.rand(2, 4, generator=generator).double()
        assert float(WORLD.error(2 * values[0] - 1, 0.5 + values[1])) > both
        assert float(WORLD.error(torch.zeros(4).double(), 0.5 + values[1])) > scaled


def test_a_moved_grid_falls_between_its_ends():
    grid = WORLD.grid(5)
    assert torch.allclose(moved(grid, torch.full((5,), 0.7).double()), grid)
    for seed in range(20):
        found = moved(grid, 3 * torch.randn(5, generator=torch.manual_seed(seed)).double())
        assert (found[0], found[-1]) == (grid[0], 0)
        assert (found.diff() < 0).all()
    alone, both = (WORLD.least_error(4, names) for names in ((SPACING,), (SPACING, DEVIATION)))
    assert both < WORLD.least_error(4, (DEVIATION,)) < alone < float(WORLD.error(torch.zeros(3)))


@pytest.mark.slow
def test_a_row_has_what_each_seed_left(monkeypatch):
    names = "deviation", "deviation and velocity scale", "grid"
    monkeypatch.setattr(actions, "SETS", {name: actions.SETS[name] for name in names})
    settings = {"iterations": 3, "learning_rate": 3e-3}
    rows = list(actions.measured([3, 4], 2, settings))
    assert [(row["actions"], row["steps"]) for row in rows] == [
        (name, number) for name in actions.SETS for number in (3, 4)
    ]
    trained = [row for row in rows if row["actions"] != "grid"]
    assert all(len(row[name]) == 2 for row in trained for name in ("alone", "mixed"))
    assert all(row["theory"] < 1 for row in rows)
    assert rows[1]["alone"][0] < 0.95
