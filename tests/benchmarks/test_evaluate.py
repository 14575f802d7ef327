"""Both sides of the comparison draw and score the same."""

import pytest

from asyncdiff_cli.engine.backbones.backbone import load_outline
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.evaluation.comparison import Comparison
from asyncdiff_cli.engine.evaluation.start import open_evaluation
from benchmarks import evaluate


@pytest.fixture
def wanted():
    choice = ModelChoice(backbone="mini", device="cpu")
    settings = {"texts": ("a cat", "a fox"), "steps": (2,), "rewards": ("sharpness",), "size": 32}
    return Comparison(choice, "baseline,fixed:0.5", **settings, kept_images=0)


def test_the_script_scores_what_the_evaluation_scores(wanted, tmp_path):
    evaluation = open_evaluation(wanted, tmp_path / "store")
    encoder = Canvas(load_outline(Outline.of(wanted.choice), "text"))
    evaluate.ours(encoder, evaluation, tmp_path / "again")
    rows = evaluation.store.read().to_pylist()
    theirs = evaluate.script(evaluation, load_outline(Outline.of(wanted.choice)), batch=1)
    assert len(rows) == 4
    for row in rows:
        score = theirs[row["policy"]][row["prompt_id"]]["sharpness"].item()
        assert row["sharpness"] == pytest.approx(score, abs=1e-3)


@pytest.mark.slow
def test_a_round_times_ours_and_the_script_and_counts_what_is_shared(wanted):
    seconds, rows = evaluate.compare(wanted, 1, 2)
    assert all(values.shape == (1,) and (values > 0).all() for values in seconds.values())
    assert rows[evaluate.WHOLE] == 2 * (2 * 2 * 2 * 2)  # rounds of branches, prompts, policies, K
    assert rows[evaluate.OURS] == 2 * (2 * 2 * (1 + 2))
    assert list(seconds) == [evaluate.OURS, *evaluate.TARGETS]
