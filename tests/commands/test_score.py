"""`asyncdiff score`."""

import csv
import subprocess
import sys

import pytest
from PIL import Image

from asyncdiff_cli.engine.downloads import file_sha256
from asyncdiff_cli.engine.rewards.embedded import WEIGHTS_FILE, directory_of
from tests.helpers.pictures import bad_pictures


@pytest.fixture
def pictures(asyncdiff):
    """Two pictures of mini's, with their panel."""
    outcome = asyncdiff(
        "sample", "a cat", "a red apple", "--steps", 4, "--guidance", 3, "--compare", "0,1",
        "--out", "drawn",
    )  # fmt: skip
    assert outcome.code == 0
    return outcome.out


def test_drawn_pictures_are_scored_by_what_they_carry(asyncdiff, pictures):
    outcome = asyncdiff("score", "drawn", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = outcome.json
    assert [image["prompt"] for image in found["images"]] == ["a cat"] * 2 + ["a red apple"] * 2
    assert list(found["summary"]) == ["mini_clip", "mini_quality", "noise", "sharpness"]
    assert {row["n"] for row in found["summary"].values()} == {4}
    for image in found["images"]:
        assert -1 < image["scores"]["mini_clip"] < 1
        assert image["scores"]["noise"] <= 0
    assert found["skipped"] == []
    assert found["rewards"]["mini_clip"]["dtype"] == "float32"
    weights = file_sha256(directory_of("mini_clip") / WEIGHTS_FILE)[:16]
    assert found["rewards"]["mini_clip"]["weights"] == weights
    assert "weights" not in found["rewards"]["noise"]  # a formula has none


def test_the_right_prompt_scores_higher(asyncdiff, pictures):
    cats = [p for p in pictures.split() if "cat-seed" in p]
    right = asyncdiff("score", *cats, "--rewards", "mini_clip", "--json").json["summary"]
    wrong = asyncdiff(
        "score", *cats, "--rewards", "mini_clip", "--prompt", "a green tractor", "--json"
    ).json["summary"]
    assert right["mini_clip"]["mean"] > wrong["mini_clip"]["mean"] + 0.1


def test_the_table_has_a_row_per_picture_and_the_means(asyncdiff, pictures):
    outcome = asyncdiff("score", "drawn", "--rewards", "noise,sharpness")
    assert outcome.code == 0
    lines = [line for line in outcome.out.splitlines() if line.strip()]
    assert lines[0].split() == ["picture", "noise", "sharpness"]
    rows = {line.split("  ")[0].strip(): line.split()[-2:] for line in lines[2:]}
    found = asyncdiff("score", "drawn", "--rewards", "noise,sharpness", "--json").json
    for image in found["images"]:
        assert rows[image["path"]] == [f"{score:.4f}" for score in image["scores"].values()]
    means = [f"{row['mean']:.4f}" for row in found["summary"].values()]
    errors = [f"{row['standard_error']:.4f}" for row in found["summary"].values()]
    assert (rows["mean of 4"], rows["standard error"]) == (means, errors)


def test_scores_go_to_a_file(asyncdiff, pictures, tmp_path):
    asyncdiff("score", "drawn", "--rewards", "noise", "--csv", "scores.csv")
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == ["a cat"] * 2 + ["a red apple"] * 2
    assert all(float(row["noise"]) <= 0 for row in rows)
    again = "score", "drawn", "--csv", "scores.csv"
    assert asyncdiff(*again, "--rewards", "noise").err == ""
    assert "see scores-2.csv" in asyncdiff(*again, "--rewards", "sharpness").err
    assert (tmp_path / "scores.csv").read_text().startswith("path,prompt,noise")
    assert (tmp_path / "scores-2.csv").read_text().startswith("path,prompt,sharpness")


def test_prompts_come_from_a_file(asyncdiff, pictures, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\na dog\nan owl\n")
    outcome = asyncdiff("score", "drawn", "--prompts", "prompts.txt")
    assert outcome.code == 2
    assert "3 prompts for 4 pictures" in outcome.err
    (tmp_path / "prompts.txt").write_text("a cat\na dog\nan owl\na bee\n")
    outcome = asyncdiff("score", "drawn", "--prompts", "prompts.txt", "--rewards", "noise")
    assert outcome.code == 0


def test_a_bad_picture_is_named_skipped_and_counted(asyncdiff, pictures, tmp_path):
    (tmp_path / "drawn" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Image.new("RGB", (64, 64)).save(tmp_path / "drawn" / "unnamed.png")
    outcome = asyncdiff("score", "drawn", "--json")
    assert outcome.code == 1
    assert len(outcome.json["images"]) == 4
    torn, unnamed = outcome.json["skipped"]
    assert torn["path"].endswith("torn.png")
    assert "carries no asyncdiff provenance" in unnamed["reason"]
    assert "skipped drawn/torn.png" in outcome.err
    assert "2 of 6 pictures could not be scored" in outcome.err
    # without a prompt, what reads none still scores
    assert asyncdiff("score", "drawn/unnamed.png", "--rewards", "noise").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no file or directory nowhere"),
        (["."], "no pictures"),
        ([".", "--rewards", "pikscore"], "did you mean 'pickscore'"),
        ([".", "--rewards", "clip", "--reward-path", "clip=no.pt"], "there is no file no.pt"),
        ([], "PATH"),
    ],
)
def test_bad_input_is_one_line(asyncdiff, arguments, message):
    outcome = asyncdiff("score", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("name", ["image_reward", "hpsv2", "hpsv2.1", "clip", "pickscore"])
def test_a_metric_that_is_not_there_stops_with_one_line(asyncdiff, tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    outcome = asyncdiff("score", "a.png", "--prompt", "a cat", "--rewards", f"noise,{name}")
    assert (outcome.code, outcome.out) == (1, "")
    assert "cannot be reached: connect, or pass --reward-path" in outcome.err
    assert outcome.err.count("\n") == 1


def test_help_needs_no_torch():
    code = (
        "import sys; from asyncdiff_cli.app import run; run(['score', '--help']);"
        " sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pictures_that_no_reward_can_read_are_skipped_alone(asyncdiff, tmp_path):
    bad = [*bad_pictures(tmp_path), "2x2.png"]
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    outcome = asyncdiff("score", ".", "--rewards", "noise", "--json")
    assert outcome.code == 1
    assert [image["path"] for image in outcome.json["images"]] == ["good.png"]
    assert sorted(skipped["path"] for skipped in outcome.json["skipped"]) == sorted(bad)
    assert "skipped 2x2.png: noise needs 4×4 pixels; this one has 2×2" in outcome.err
    assert f"{len(bad)} of {len(bad) + 1} pictures could not be scored" in outcome.err
