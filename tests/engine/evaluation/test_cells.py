"""Which means are marked: by hand, and as the paper's own tables are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine.evaluation import paper
from asyncdiff_cli.engine.evaluation.cells import digits_of, has_best, marks


@pytest.mark.parametrize(
    ("means", "digits", "expected"),
    [
        ([0.1, 0.3, 0.2], 4, ["", "best", "second"]),
        ([-0.1, -0.3, -0.2], 4, ["best", "", "second"]),
        ([22.27, 22.28, 22.281], 2, ["", "best", "best"]),  # no second beside two that are best
        ([0.2754, 0.27543, 0.2757], 4, ["", "", "best"]),  # nor two of them
        ([0.2754, 0.27543, 0.2757], 5, ["", "second", "best"]),
        ([0.5, 0.5, 0.5], 4, ["", "", ""]),
        ([0.5], 4, [""]),
        ([0.5, 0.4], 4, ["best", "second"]),
        ([0.00001, -0.00001, -1.0], 4, ["best", "best", ""]),
    ],
)
def test_best_and_second_best_are_those_that_print_so(means, digits, expected):
    assert marks(means, digits) == expected


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.randoms())
def test_marks_follow_their_means_into_any_order(means, random):
    pairs = list(zip(means, marks(means, 2), strict=True))
    random.shuffle(pairs)
    assert marks([mean for mean, _ in pairs], 2) == [mark for _, mark in pairs]


UNDERLINED = {
    ("sd35", "coco2014"): {"image_reward": "learned", "hpsv2": "learned", "clip": "baseline"},
    ("sd35", "t2i-compbench"): {
        "image_reward": "learned", "hpsv2": "learned", "pickscore": "lifted"
    },
    ("flux", "coco2014"): {
        "image_reward": "learned", "hpsv2": "learned", "clip": "learned", "pickscore": "lifted"
    },
    ("flux", "t2i-compbench"): {
        "image_reward": "lifted", "hpsv2": "learned", "clip": "lifted", "pickscore": "lifted"
    },
}  # fmt: skip
"""What the paper itself underlines in Tables 1 and 2."""


@pytest.mark.parametrize("cell", UNDERLINED)
def test_the_paper_s_second_best_is_what_the_paper_underlines(cell):
    rows = paper.reported(*cell).rows
    for metric in paper.METRICS:
        found = marks([r.metrics[metric] for r in rows], digits_of(metric))
        second = [r.policy for r, mark in zip(rows, found, strict=True) if mark == "second"]
        assert second == [p for m, p in UNDERLINED[cell].items() if m == metric]


def test_other_metrics_have_one():
    assert all(map(has_best, [*paper.METRICS, "mini_clip", "mini_quality"]))
