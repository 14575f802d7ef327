"""The comparison of schedules: searched on other prompts than it is measured on, and paired."""

import json

import pytest
import torch

from asyncdiff_cli.engine import backbone_from_pipeline
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.schedules.search import Search
from benchmarks import schedules
from tests.conftest import quiet, tiny_sd3


@pytest.fixture(scope="module")
def canvas():
    return Canvas(backbone_from_pipeline(quiet(tiny_sd3())), size=16)


def test_what_is_measured_on_was_not_searched_on(canvas):
    searched, held_out = (
        schedules.pictures(canvas, split, 8, 3, 4) for split in ("train", "validation")
    )
    assert not {*searched.prompts} & {*held_out.prompts}
    assert not {*searched.seeds} & {*held_out.seeds}


def test_rows_are_beside_synchronous_euler(canvas):
    sets = (schedules.pictures(canvas, s, n, 3, 2) for s, n in (("train", 2), ("validation", 3)))
    with torch.no_grad():
        rows = [*schedules.measured(*sets, Search(split=2, candidates=3, sweeps=0), (0.5, 0.0))]
    assert [row["solver"] for row in rows] == ["euler"] * 5 + ["dpmpp"] * 4 + ["unipc"] * 4
    first = rows[0]
    assert (first["schedule"], first["difference"], first["low"], first["high"]) == (
        *("synchronous", 0, 0, 0),
    )
    by_name = {(row["solver"], row["schedule"]): row for row in rows}
    assert by_name["euler", "distilled"]["deviations"] == [0.5, 0.0]
    for row in rows:
        assert row["mean"] == pytest.approx(first["mean"] + row["difference"])
        assert json.dumps(row)
    assert by_name["dpmpp", "synchronous"]["mean"] != first["mean"]
