"""What official scorers say of a store's images becomes a column of it, or is refused."""

import json
import math

import numpy as np
import pytest

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.export import plan_export, write_export
from asyncdiff_cli.engine.evaluation.import_scores import import_column
from asyncdiff_cli.engine.evaluation.imported import column_file, read_column
from asyncdiff_cli.engine.evaluation.merge import merge
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import summarize
from asyncdiff_cli.engine.evaluation.table_data import to_csv, to_json
from asyncdiff_cli.engine.statistics import paired
from tests.helpers.scorers import (
    STYLES,
    TREES,
    make_scored_store,
    score_compbench,
    score_dpg,
    score_geneval,
    score_geneval2,
    write_benchmark,
)
from tests.helpers.stores import row


@pytest.fixture
def exported(tmp_path):
    """A store of a tiny benchmark as it was exported: what was planned, and where it is."""

    def make(name, **changes):
        prompts = write_benchmark(name, tmp_path / name)
        store = make_scored_store(tmp_path / "store", name, prompts, **changes)
        planned = plan_export(store, name, prompts=prompts)
        write_export(planned, tmp_path / "out")
        return planned, tmp_path / "out"

    return make


def scores_of(planned, name, policy):
    """A column of a policy, by prompt and in the order of the noises."""
    rows = planned.store.read(["prompt", "image", name]).to_pylist()
    own = [row for row in rows if row["policy"] == policy]
    numbers = {row["image"]: int(row["image"].split("-")[1]) for row in own}
    own.sort(key=lambda row: numbers[row["image"]])
    found = {}
    for found_row in own:
        found.setdefault(found_row["prompt"], []).append(found_row[name])
    return found


def test_geneval_s_lines_are_ones_and_zeros(exported):
    planned, out = exported("geneval")
    score_geneval(out, lambda tree, place, number: tree == TREES[1] or number < place)
    assert import_column(planned, out, "geneval") == (12, None)
    assert scores_of(planned, "geneval", "baseline") == {
        "a photo of a bench": [0.0, 0.0],
        "a photo of a cow": [1.0, 0.0],
        "a photo of a bus": [1.0, 1.0],
    }
    assert planned.store.imported == ("geneval",)
    found = summarize(Store(planned.store.path))
    assert found.rewards == ("sharpness", "noise", "geneval")
    baseline, fixed = found.results
    prompts = planned.store.read(["prompt"]).to_pylist()
    order = dict.fromkeys(row["prompt"] for row in prompts)
    means = [np.mean(scores_of(planned, "geneval", "baseline")[prompt]) for prompt in order]
    assert fixed.metrics["geneval"] == paired([1.0, 1.0, 1.0], means)
    assert (baseline.metrics["geneval"].mean, baseline.metrics["geneval"].n) == (0.5, 3)
    assert found.categories["colors"].result(fixed.setting).metrics["geneval"].n == 2


def test_geneval_2_s_lists_have_a_geometric_mean(exported):
    planned, out = exported("geneval2")
    lists = {TREES[0]: [[0.25, 1.0], [0.5]], TREES[1]: [[0.0, 1.0], [0.81, 1.0]]}
    score_geneval2(out, lists)
    assert import_column(planned, out, "geneval2").scores == 4
    assert scores_of(planned, "geneval2", "baseline") == {
        "two white cows": [pytest.approx(0.5)],
        "two white buss": [pytest.approx(0.5)],
    }
    assert scores_of(planned, "geneval2", "fixed:0.5")["two white cows"] == [0.0]


def test_dpg_s_lines_have_a_score_for_each_noise(exported):
    planned, out = exported("dpg")
    score_dpg(out, lambda tree, stem: [1.0, 0.5, 0.25, 0.0] if stem == "9" else [0.5] * 4)
    import_column(planned, out, "dpg")
    found = scores_of(planned, "dpg", "fixed:0.5")
    assert found["A long prompt, 9."] == [1.0, 0.5, 0.25, 0.0]
    assert found["A long prompt, 10."] == [0.5] * 4


def test_t2i_compbench_s_answers_are_of_the_categories_that_were_scored(exported):
    planned, out = exported("t2i-compbench")
    answers = {TREES[0]: ["0.1000", "0.2000", "0.3000", "0.4000"], TREES[1]: ["1"] * 4}
    score_compbench(out, "color", "annotation_blip", answers)
    score_compbench(out, "spatial", "labels/annotation_obj_detection_2d", answers)
    score_compbench(out, "complex", "annotation_blip", answers)  # not what complex is judged by
    assert import_column(planned, out, "compbench").scores == 16
    found = scores_of(planned, "compbench", "baseline")
    assert (found["color val 1"], found["spatial val 2."]) == ([0.1, 0.2], [0.3, 0.4])
    assert found["complex val 1"] == [None, None]
    summary = summarize(planned.store)
    assert summary.results[0].metrics["compbench"].mean == pytest.approx(0.25)
    assert summary.results[0].metrics["compbench"].n == 4
    assert summary.results[0].metrics["noise"].n == 16
    assert "compbench" not in summary.categories["complex"].metrics
    assert summary.notes == (
        "compbench is of the 8 of 32 images for which it has scores of all policies; export and"
        " import-scores bring the others",
    )
    assert "compbench" in to_csv(summary)
    assert to_json(summary)["rows"][1]["categories"]["color"]["compbench"]["mean"] == 1.0


def test_hpsv2_takes_a_line_for_each_picture(exported):
    planned, out = exported("hpsv2")
    lines = [
        {"image": f"{tree}/{style}/0000{n}.jpg", "score": 0.25 + n}
        for tree in TREES
        for style in STYLES
        for n in range(2)
    ]
    (out / "scores.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    import_column(planned, out, "official")
    assert scores_of(planned, "official", "baseline")["photo, second"] == [1.25]


def test_paths_may_be_from_the_directory_of_the_results(exported):
    planned, out = exported("geneval")
    score_geneval(out)
    for tree in TREES:
        file = out / tree / "results.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            line["filename"] = line["filename"].removeprefix(f"{out / tree}/")
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert import_column(planned, out, "geneval").scores == 12


def test_twice_is_once(exported):
    planned, out = exported("geneval")
    score_geneval(out)
    import_column(planned, out, "geneval")
    before = summarize(planned.store)
    content = column_file(planned.store.path, "geneval").read_bytes()
    assert import_column(planned, out, "geneval") == (12, 12)
    assert column_file(planned.store.path, "geneval").read_bytes() == content
    assert to_json(summarize(planned.store)) == to_json(before)


def test_the_rows_are_left_as_they_were(exported):
    planned, out = exported("geneval")
    before = [path.read_bytes() for path in planned.store.parts()]
    score_geneval(out)
    import_column(planned, out, "geneval")
    assert [path.read_bytes() for path in planned.store.parts()] == before
    assert planned.store.read().column_names == planned.store.schema.names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], r"no score of fixed.*00002/samples/0001.png \(1 of 12 pictures"),
        (lambda lines: [*lines, lines[0]], r"has a score already, from .*results.jsonl:1: give"),
        (
            lambda lines: [{**lines[0], "filename": "x/00009/samples/0000.png"}, *lines[1:]],
            r"results.jsonl:1: x/00009/samples/0000.png is no picture of .*folders are baseline-",
        ),
        (
            lambda lines: [{**lines[0], "prompt": "a photo of a cat"}, *lines[1:]],
            r"results.jsonl:1: the prompt of .* is 'a photo of a bench' here",
        ),
        (lambda lines: [{"image": 1}], "filename: Field required"),
    ],
)
def test_results_of_other_pictures_are_refused(exported, change, message):
    planned, out = exported("geneval")
    score_geneval(out)
    file = out / TREES[1] / "results.jsonl"
    lines = change([json.loads(line) for line in file.read_text().splitlines()])
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(InputError, match=message):
        import_column(planned, out, "geneval")
    assert planned.store.imported == ()


def test_all_policies_are_scored_or_none(exported):
    planned, out = exported("geneval")
    score_geneval(out)
    with pytest.raises(InputError, match=r"no score of fixed-.*\(6 of 12 pictures .*all trees"):
        import_column(planned, out / TREES[0] / "results.jsonl", "geneval")


def test_no_results(exported):
    planned, out = exported("geneval")
    with pytest.raises(InputError, match=r"out holds no results: the scorer writes results.jsonl"):
        import_column(planned, out, "geneval")


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[0.5]], r"no score of baseline-gamma1-steps3/1 \(2 of 4"),
        ([[0.5]] * 3, r"prompt 2: .*steps3/2 is no picture of"),
        ([[0.5], []], "prompt 1: its scores are probabilities, one or more"),
        ([[0.5], [-0.5]], "prompt 1: its scores are probabilities"),
        ([[0.5], [50.0]], "prompt 1: its scores are probabilities"),
        ([[0.5], [math.inf]], "prompt 1: its scores are probabilities"),
        ({"a": 1}, "score_lists.json is no list of scores by prompt"),
    ],
)
def test_lists_of_other_prompts_are_refused(exported, lists, message):
    planned, out = exported("geneval2")
    score_geneval2(out, dict.fromkeys(TREES, lists))
    with pytest.raises(InputError, match=message):
        import_column(planned, out, "geneval2")


def test_true_is_no_score(exported):
    planned, out = exported("hpsv2")
    line = {"image": f"{TREES[0]}/anime/00000.jpg", "score": True}
    (out / "scores.jsonl").write_text(json.dumps(line))
    with pytest.raises(InputError, match=r"jsonl:1: a score is a number, not True"):
        import_column(planned, out, "hpsv2")


@pytest.mark.parametrize("line", ["9.png, 0.5, 0.5", "hello", "9.png, 1, 1, 1, yes, 1"])
def test_lines_that_dpg_does_not_write(exported, line):
    planned, out = exported("dpg")
    score_dpg(out)
    (out / TREES[0] / "dpg-bench_20261127-120000_results.txt").write_text(line)
    with pytest.raises(InputError, match=r"_results.txt:1: a (line is PATH.png|score is a number)"):
        import_column(planned, out, "dpg")


def test_answers_that_lie_elsewhere(exported, tmp_path):
    planned, _ = exported("t2i-compbench")
    (tmp_path / "vqa_result.json").write_text('[{"question_id": 0, "answer": "1"}]')
    with pytest.raises(InputError, match="is not where the scorer of a category writes"):
        import_column(planned, tmp_path / "vqa_result.json", "compbench")


@pytest.mark.parametrize(
    "name", ["noise", "composite", "prompt", "steps", "fid", "x_low", "../x", "a b", ""]
)
def test_names_that_no_column_can_have(exported, name):
    planned, out = exported("geneval")
    score_geneval(out)
    with pytest.raises(InputError, match=r"there is a column|a column's name is|table.csv has"):
        import_column(planned, out, name)


def test_a_policy_that_came_later_has_no_scores(exported):
    planned, out = exported("geneval")
    score_geneval(out)
    import_column(planned, out, "geneval")
    store = planned.store
    rows = [r for r in store.read().to_pylist() if r["policy"] == "baseline"]
    store.write([row(**{**r, "policy": "fixed:0.25"}) for r in rows])
    found = summarize(store)
    assert found.rewards == ("sharpness", "noise")
    assert found.notes[0].startswith("geneval is of the 0 of 6 images")


def test_merged_stores_keep_the_columns(exported, tmp_path):
    planned, out = exported("geneval")
    score_geneval(out)
    import_column(planned, out, "geneval")
    merged = merge([planned.store.path], tmp_path / "merged")
    assert merged.imported == ("geneval",)
    assert read_column(merged.path, "geneval") == read_column(planned.store.path, "geneval")
    held = merged.held()
    assert held.read(["geneval"]) == merged.read(["geneval"])
    score_geneval(out, lambda *_: False)
    import_column(planned, out, "geneval")
    with pytest.raises(InputError, match=r"merged has other scores in geneval of the same images"):
        merge([planned.store.path, merged.path], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_a_damaged_column_says_what_to_do(exported):
    planned, out = exported("geneval")
    score_geneval(out)
    import_column(planned, out, "geneval")
    column_file(planned.store.path, "geneval").write_bytes(b"PAR1")
    with pytest.raises(AsyncDiffError, match=r"geneval.parquet is damaged .*import-scores again"):
        summarize(planned.store)
