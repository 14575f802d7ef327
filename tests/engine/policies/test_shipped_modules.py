"""The modules that mini ships."""

import pytest
import torch

from asyncdiff_cli.engine import REGISTRY, load_backbone, sample
from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY
from asyncdiff_cli.engine.policies.specs import parse_policy
from asyncdiff_cli.engine.training.recipe_files import load_recipe

MINI = REGISTRY["mini"]


@pytest.fixture(params=MINI.modules)
def shipped(request):
    """A module's policy and its card."""
    card = (MINI.modules[request.param] / "README.md").read_text()
    return request.param, parse_policy(request.param, MINI).policy, card


def test_a_card_is_its_module_s_and_tells_how_it_was_trained(shipped, tmp_path):
    name, policy, card = shipped
    assert f"| fingerprint | {policy.fingerprint} |" in card
    assert f"--policy {name}\n" in card
    assert f'LearnedDeviation.load("{policy.source}")' in card
    path = tmp_path / "recipe.yaml"
    path.write_text(card.split("````yaml\n")[1].split("````")[0])
    recipe = load_recipe(str(path))
    assert (recipe.backbone, recipe.num_inference_steps) == ("mini", MINI.num_inference_steps)
    assert recipe.guidance_scale == MINI.guidance_scale
    assert (recipe.bound, recipe.actions) == (policy.bound, policy.tpm.actions)
    assert sum(p.numel() for p in policy.tpm.parameters()) == int(
        card.split("| parameters | ")[1].split(" ")[0].replace(",", "")
    )


def test_modules_are_no_part_of_the_weights_that_pictures_name():
    assert not [path for path in MINI.modules.values() if path.is_relative_to(MINI_DIRECTORY)]


def test_it_chooses_otherwise_for_each_picture(shipped):
    prompts = ["a fox on grass", "a red car left of a clock on a plain background"]
    drawn = sample(
        load_backbone("mini"), prompts, shipped[1], num_inference_steps=4,
        generator=torch.manual_seed(1), output_type="latent",
    )  # fmt: skip
    first, second = drawn.deviations
    assert len(first) == 3
    assert drawn.deviations.abs().max() <= shipped[1].bound
    assert not torch.allclose(first, second, atol=1e-3)
