"""The comparison of policies pairs the same prompts and noise, and chooses on other prompts."""

import pytest
import torch

from asyncdiff_cli.engine import FixedDeviation, Synchronous, load_backbone
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.prompts.load import load_prompts
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from benchmarks.policies import FIXED, SYNCHRONOUS, chosen_among, held_out, measure


@pytest.fixture(scope="module")
def setting():
    recipe = load_recipe("mini", ["num_inference_steps=3", "evaluation.prompts=5"])
    canvas = Canvas(load_backbone("mini"), recipe.guidance_scale, recipe.size)
    return recipe, canvas, RewardGroup({"sharpness": 1})


def test_no_prompt_has_been_seen(setting):
    recipe, *_ = setting
    evaluated = load_prompts("mini", "validation").draw(5, recipe.evaluation.seed)
    tested, chosen = held_out(*setting, 20), chosen_among(*setting, 10)
    assert (len(tested.prompts), len(chosen.prompts)) == (20, 10)
    assert not {*tested.prompts} & {*evaluated}
    assert not {*tested.prompts} & {*chosen.prompts}
    assert not {*tested.seeds} & {*chosen.seeds}


def test_differences_are_paired(setting):
    policies = {SYNCHRONOUS: Synchronous(), FIXED: FixedDeviation(1.0), "again": FixedDeviation(1)}
    table = measure(policies, held_out(*setting, 3), batch=2)
    same = table[SYNCHRONOUS]["metrics"]["composite"]
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)
    assert table["again"]["metrics"] == table[FIXED]["metrics"]
    assert table["again"]["beside_fixed"]["difference"] == 0
    assert table[FIXED]["metrics"]["sharpness"]["difference"] != 0
    assert table[FIXED]["metrics"]["composite"]["n"] == 3
    assert torch.tensor(table[FIXED]["deviation"]).tolist() == [1, 1]
