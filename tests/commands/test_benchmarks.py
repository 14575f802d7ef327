"""`asyncdiff export` and `import-scores`, as they are typed."""

import pytest

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.evaluation.comparison import KEPT_IMAGES, Comparison
from tests.helpers.scorers import TREES, make_scored_store, score_geneval, write_benchmark


@pytest.fixture
def store(asyncdiff, tmp_path):
    """A store of GenEval's prompts, of which there are three."""
    prompts = write_benchmark("geneval", tmp_path / "prompts")
    return make_scored_store(tmp_path / "store", "geneval", prompts)


COPY = ("--layout", "geneval", "--prompts", "prompts/prompts.jsonl")


def test_a_store_goes_to_a_scorer_and_back(asyncdiff, store, tmp_path):
    outcome = asyncdiff("export", "store", *COPY, "--out", "trees", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json == {"prompts": 3, "folders": [f"trees/{tree}" for tree in TREES]}
    score_geneval(tmp_path / "trees", lambda tree, place, number: tree == TREES[1])
    outcome = asyncdiff("import-scores", "store", "trees", *COPY, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    row = outcome.json["rows"][1]
    assert row["metrics"]["geneval"] == {"mean": 1, "difference": 1, "low": 1, "high": 1, "n": 3}
    assert "geneval" in (tmp_path / "store" / "table.md").read_text()
    again = asyncdiff("import-scores", "store", "trees", *COPY)
    assert again.err == "warning: geneval was there: its 12 scores give way to these 12\n"
    assert "geneval by category" in again.out
    for command in (("report", "store"), ("merge", "store", "--out", "merged")):
        assert asyncdiff(*command).code == 0
    assert '<th scope="col">geneval' in (tmp_path / "store" / "report.html").read_text()


def test_what_cannot_be_exported_is_one_line(asyncdiff, store):
    refused = asyncdiff("export", "store", *COPY, "--out", "store")
    assert (refused.code, refused.err) == (2, "error: store is there already: give another --out\n")
    refused = asyncdiff("import-scores", "store", "prompts", *COPY)
    assert refused.code == 2
    assert refused.err == "error: prompts holds no results: the scorer writes results.jsonl\n"


def test_all_images_of_a_benchmark_are_kept_unless_asked_otherwise():
    choice = ModelChoice(backbone="flux")
    assert Comparison(choice, "baseline", dataset="geneval").num_kept >= 553
    assert Comparison(choice, "baseline", dataset="geneval", kept_images=2).num_kept == 2
    assert Comparison(choice, "baseline", dataset="t2i-compbench").num_kept == KEPT_IMAGES
