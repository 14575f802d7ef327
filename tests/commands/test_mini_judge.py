"""`mini_judge` in the commands: from a directory, for prompts that it can read."""

import pytest
from PIL import Image

from asyncdiff_cli.engine.evaluation.comparison import REWARDS
from asyncdiff_cli.engine.rewards.world.questions import NEEDS


@pytest.fixture
def pictures(tmp_path):
    for number, name in enumerate(("one", "two")):
        Image.new("RGB", (32, 32), (90 * number, 20, 60)).save(tmp_path / f"{name}.png")
    return "one.png", "two.png"


def test_score_tells_the_answer_to_each_question(asyncdiff, judge_directory, pictures):
    given = ("--rewards=mini_judge,noise", f"--reward-path=mini_judge={judge_directory}")
    found = asyncdiff("score", *pictures, *given, "--prompt", "two red cars", "--json").json
    for image in found["images"]:
        answers = image["details"]["mini_judge"]
        assert [each["category"] for each in answers] == ["things", "counts", "colours"]
        mean = sum(each["probability"] for each in answers) / 3
        assert image["scores"]["mini_judge"] == pytest.approx(mean)


def test_score_skips_what_it_cannot_read(asyncdiff, judge_directory, pictures, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\na spaceship\n")
    given = ("--rewards=mini_judge", f"--reward-path=mini_judge={judge_directory}")
    outcome = asyncdiff("score", *pictures, *given, "--prompts", "prompts.txt")
    assert outcome.code == 1
    assert "skipped two.png: mini_judge cannot read 'a spaceship'" in outcome.err
    assert "mean of 1" in outcome.out


def test_without_its_directory_it_is_refused_in_a_line(asyncdiff, pictures, monkeypatch, tmp_path):
    monkeypatch.setattr("asyncdiff_cli.engine.rewards.embedded.ASSETS", tmp_path)
    outcome = asyncdiff("score", *pictures, "--rewards=mini_judge", "--prompt=a cat")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--reward-path mini_judge=DIR" in outcome.err


@pytest.mark.parametrize("command", ["eval", "train"])
def test_prompts_that_it_cannot_read_are_refused_before_anything_is_drawn(
    asyncdiff, pipelines, judge_directory, tmp_path, command
):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a spaceship {n}\n" for n in range(40)))
    options = {
        "eval": (
            *(
                "--backbone",
                pipelines["sd3"],
                "--dataset",
                prompts,
                "--policies=baseline,fixed:0.5",
                "--rewards=mini_judge",
            ),
            *(f"--reward-path=mini_judge={judge_directory}", "--limit=3", "--size=16"),
        ),
        "train": (
            *("--prompts", prompts, "rewards={mini_judge: 1}"),
            f"reward_paths.mini_judge={judge_directory}",
        ),
    }[command]
    outcome = asyncdiff(command, *options, "--out", "out")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"({3 if command == 'eval' else 40} of" in outcome.err
    assert "or the reward mini_judge" in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_evaluation_has_a_column_per_category(asyncdiff, pipelines, judge_directory):
    found = asyncdiff(
        *("eval", "--backbone", pipelines["sd3"], "--dataset=mini", "--limit=28", "--size=16"),
        *("--steps=1", "--policies=baseline", "--rewards=mini_judge", "--images=0", "--json"),
        *(f"--reward-path=mini_judge={judge_directory}", "--guidance=1", "--out", "out"),
    ).json
    (row,) = found["rows"]
    judged = {name: own["mini_judge"] for name, own in row["categories"].items()}
    assert set(judged) == set(NEEDS)
    assert sum(own["n"] for own in judged.values()) == 28
    weighted = sum(own["mean"] * own["n"] for own in judged.values())
    assert weighted / 28 == pytest.approx(row["metrics"]["mini_judge"]["mean"])


def test_the_shipped_judge_is_asked_first_on_mini(asyncdiff, draw, tmp_path):
    draw("a cat", "two red cars", "--out", "pictures")
    found = asyncdiff("score", "pictures", "--rewards=mini_judge", "--json").json
    assert [len(image["details"]["mini_judge"]) for image in found["images"]] == [2, 3]
    assert all(0 <= image["scores"]["mini_judge"] <= 1 for image in found["images"])
    assert REWARDS["mini"][0] == "mini_judge"
