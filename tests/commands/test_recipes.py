"""`asyncdiff recipes`."""

import subprocess
import sys

import pytest

from asyncdiff_cli.engine.training.recipe import cost
from asyncdiff_cli.engine.training.recipe_files import header, load_recipe, names


def test_all_are_listed(asyncdiff):
    outcome = asyncdiff("recipes", "list")
    assert (outcome.code, outcome.err) == (0, "")
    rows = [line.split() for line in outcome.out.splitlines() if line.strip()]
    assert rows[0] == ["name", "backbone", "prompts", "bound", "steps", "images"]
    assert [row[0] for row in rows[2:]] == names()
    assert ["flux-coco", "flux", "coco2014", "0.5", "10", "64,000"] in rows


def test_the_list_as_json(asyncdiff):
    found = asyncdiff("recipes", "list", "--json").json["recipes"]
    assert [row["name"] for row in found] == names()
    (row,) = (row for row in found if row["name"] == "sd35-coco-lifted")
    assert row == {
        "name": "sd35-coco-lifted",
        "backbone": "sd35",
        "prompts": "coco2014",
        "bound": 1.0,
        "num_inference_steps": 15,
        "images": 64_000,
        "forward_passes": 1_920_000,
    }


def test_what_is_shown_is_a_recipe_with_every_setting(asyncdiff, tmp_path):
    outcome = asyncdiff("recipes", "show", "flux-compbench-lifted")
    assert (outcome.code, outcome.err) == (0, "")
    (tmp_path / "mine.yaml").write_text(outcome.out)
    assert load_recipe("mine.yaml") == load_recipe("flux-compbench-lifted")
    assert header("mine.yaml") == header("flux-compbench-lifted")
    assert "extends" not in outcome.out.replace(header("mine.yaml"), "")


def test_overrides_are_shown_with_their_cost(asyncdiff, tmp_path):
    outcome = asyncdiff("recipes", "show", "mini", "iterations=20", "tpm.layers=2")
    (tmp_path / "mine.yaml").write_text(outcome.out)
    recipe = load_recipe("mini", ["iterations=20", "tpm.layers=2"])
    assert load_recipe("mine.yaml") == recipe
    assert f"With iterations=20 tpm.layers=2: {cost(recipe).images:,} images" in outcome.out


def test_a_recipe_as_json(asyncdiff):
    found = asyncdiff("recipes", "show", "mini", "seed=7", "--json").json
    assert found["header"] == header("mini")
    assert found["recipe"] == load_recipe("mini", ["seed=7"]).model_dump(mode="json")
    assert found["images"] == cost(load_recipe("mini")).images


def test_a_copy_can_be_changed_and_checked(asyncdiff, tmp_path):
    outcome = asyncdiff("recipes", "copy", "mini", "mine.yaml")
    assert (outcome.code, outcome.out) == (0, "mine.yaml\n")
    outcome = asyncdiff("recipes", "validate", "mine.yaml")
    assert outcome.code == 0
    assert outcome.out.startswith("mine.yaml is valid: ")
    with (tmp_path / "mine.yaml").open("a") as file:
        file.write("iteratons: 3\n")
    outcome = asyncdiff("recipes", "validate", "mine.yaml", "seed=x", "mini_batch_size=7777")
    assert (outcome.code, outcome.out) == (2, "")
    for part in ("did you mean 'iterations'", "mini_batch_size 7777", "seed: "):
        assert part in outcome.err
    assert outcome.err.count("\n") == 1


def test_copies_and_checks_as_json(asyncdiff):
    copied = asyncdiff("recipes", "copy", "mini", "mine.yaml", "--json")
    assert copied.json == {"name": "mini", "path": "mine.yaml"}
    found = asyncdiff("recipes", "validate", "mine.yaml", "iterations=1", "--json").json
    assert found["valid"]
    assert found["images"] == cost(load_recipe("mini", ["iterations=1"])).images
    outcome = asyncdiff("recipes", "validate", "mine.yaml", "iterations=0", "--json")
    assert outcome.code == 2
    assert not outcome.json["valid"]
    assert outcome.err == f"error: {outcome.json['error']}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "minni"], "did you mean 'mini'"),
        (["show", "mini", "iterations"], "KEY=VALUE"),
        (["validate", "nowhere.yaml"], "no file nowhere.yaml"),
        (["copy", "mini", "."], "exists already"),
        (["copy", "mini", "link"], "exists already"),
        (["copy", "minni", "mine.yaml"], "did you mean 'mini'"),
        (["copy", "mini"], "PATH"),
        (["shw"], "shw"),
    ],
)
def test_bad_input_is_one_line(asyncdiff, tmp_path, arguments, message):
    (tmp_path / "link").symlink_to("nowhere.yaml")
    outcome = asyncdiff("recipes", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_without_a_command_there_is_help(asyncdiff):
    outcome = asyncdiff("recipes")
    assert (outcome.code, outcome.err) == (0, "")
    for command in ("list", "show", "copy", "validate"):
        assert command in outcome.out


def test_nothing_here_needs_torch():
    code = (
        "import sys; from asyncdiff_cli.app import run; run(['recipes', '--help']);"
        " early = 'asyncdiff_cli.engine.training.recipe_files' in sys.modules;"
        " run(['recipes', 'list']);"
        " sys.exit(early or bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
