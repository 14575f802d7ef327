"""The paper's numbers against its tables, typed a second time."""

import pytest

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.evaluation.paper import METRICS, PAPER_POLICIES, reported
from asyncdiff_cli.engine.prompts.load import SOURCES
from asyncdiff_cli.engine.rewards import AVAILABLE


@pytest.mark.parametrize(
    ("backbone", "dataset", "policy", "metric", "value"),
    [
        ("sd35", "coco2014", "baseline", "image_reward", 0.9043),
        ("sd35", "coco2014", "learned", "clip", 0.2685),
        ("sd35", "coco2014", "lifted", "pickscore", 22.28),
        ("sd35", "t2i-compbench", "baseline", "hpsv2", 0.2698),
        ("sd35", "t2i-compbench", "learned", "pickscore", 22.11),
        ("sd35", "t2i-compbench", "lifted", "image_reward", 0.9377),
        ("flux", "coco2014", "baseline", "pickscore", 22.60),
        ("flux", "coco2014", "learned", "hpsv2", 0.2871),
        ("flux", "coco2014", "lifted", "clip", 0.2601),
        ("flux", "t2i-compbench", "baseline", "clip", 0.2655),
        ("flux", "t2i-compbench", "learned", "image_reward", 0.8725),
        ("flux", "t2i-compbench", "lifted", "hpsv2", 0.2866),
    ],
)
def test_numbers_are_those_of_the_tables(backbone, dataset, policy, metric, value):
    rows = {row.policy: row for row in reported(backbone, dataset).rows}
    assert rows[policy].metrics[metric] == value


@pytest.mark.parametrize(
    ("backbone", "dataset", "table", "steps", "deviations"),
    [
        ("sd35", "coco2014", 1, 15, [0, 0.192, 0.398]),
        ("sd35", "t2i-compbench", 1, 15, [0, 0.231, 0.106]),
        ("flux", "coco2014", 2, 10, [0, 0.499, 0.959]),
        ("flux", "t2i-compbench", 2, 10, [0, 0.499, 0.640]),
    ],
)
def test_every_cell_has_its_table_steps_and_mean_deviations(
    backbone, dataset, table, steps, deviations
):
    cell = reported(backbone, dataset)
    assert (cell.table, cell.steps) == (table, steps)
    assert [row.mean_deviation for row in cell.rows] == deviations
    assert [row.policy for row in cell.rows] == list(PAPER_POLICIES)
    assert [row.bound for row in cell.rows] == [None, 0.5, 1.0]
    assert all(tuple(row.metrics) == METRICS for row in cell.rows)


def test_names_are_the_project_s():
    assert set(METRICS) <= set(AVAILABLE)
    known = {(b, d) for b in REGISTRY for d in SOURCES if reported(b, d)}
    assert known == {(b, d) for b in ("sd35", "flux") for d in ("coco2014", "t2i-compbench")}


@pytest.mark.parametrize("cell", [("mini", "mini"), ("flux", "mini"), ("", ""), ("sd3", "coco")])
def test_what_the_paper_has_not_measured_is_none(cell):
    assert reported(*cell) is None
