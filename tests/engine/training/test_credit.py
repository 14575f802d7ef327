"""The credit of decisions: by hand, and that it leaves the mean of the policy gradient as it is."""

import itertools
from functools import partial

import pytest
import torch

from asyncdiff_cli.engine import backbone_from_pipeline
from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, Stopwatch
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.baselines import group_mean, leave_one_out
from asyncdiff_cli.engine.training.credit import Branching, credited, returns
from asyncdiff_cli.engine.training.recipe_files import parse_recipe
from asyncdiff_cli.engine.training.rollout import dealt, plan_iteration, roll_out
from asyncdiff_cli.engine.training.state import new_tpm
from benchmarks.calls import counted
from benchmarks.gaussian import FlowError, World
from tests.conftest import quiet, tiny_sd3
from tests.helpers.modules import randomised

WORLD = World.of_images([0.3])
RECIPE = {
    "num_inference_steps": 5,
    "rewards": {"noise": 1},
    "group_size": 4,
    "noises_per_prompt": 1,
    "prompts_per_iteration": 2,
    "tpm": {"width": 32, "layers": 1, "heads": 2},
}
TWO = {"branches": 2, "branch_at": 0.5}
PROMPTS = PromptSet("some", "train", (*WORLD.spectra,))


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_decision_is_credited_with_its_rise_and_a_part_of_later_ones():
    rewards = double(1, 3, 2, 6)  # of x̂0_0, x̂0_1, x̂0_2 and the image
    assert returns(rewards, 0).tolist() == [2, -1, 4]
    assert returns(rewards, 0.5).tolist() == [2 - 0.5 + 1, -1 + 2, 4]
    assert returns(rewards, 1).tolist() == [5, 3, 4]  # what the image has over each preview


def test_each_reward_has_rises_of_its_own():
    stages = [{"a": double(1, 2), "b": double(0, 0)}, {"a": double(2, 2), "b": double(3, 1)}]
    image = {"a": double(4, 1), "b": double(3, 2)}
    first, second = credited(image, stages, 0.0, 2)
    assert {name: own.tolist() for name, own in first.items()} == {"a": [1, 0], "b": [3, 1]}
    assert {name: own.tolist() for name, own in second.items()} == {"a": [2, -1], "b": [0, 1]}
    assert credited(image, [], None, 3) == [image] * 3


def test_a_branch_is_beside_its_siblings_and_a_prefix_beside_the_others():
    tree = Branching(branches=2, decisions=3, prefix=1)
    values = tree.values(double([[1, 3, 4, 8]]).expand(3, 1, 4))
    assert values.tolist() == [[[2, 2, 6, 6]], [[1, 3, 4, 8]], [[1, 3, 4, 8]]]
    means = tree.baseline(group_mean, values)
    assert means.tolist() == [[[4, 4, 4, 4]], [[2, 2, 6, 6]], [[2, 2, 6, 6]]]
    others = tree.baseline(leave_one_out, values)
    assert others.tolist() == [[[6, 6, 2, 2]], [[3, 1, 8, 4]], [[3, 1, 8, 4]]]


@pytest.mark.parametrize(
    ("steps", "share", "prefix"), [(3, 0.1, 1), (3, 0.9, 1), (11, 0.5, 5), (25, 0.34, 8)]
)
def test_a_prefix_leaves_decisions_before_and_after_the_branching(steps, share, prefix):
    recipe = parse_recipe({**RECIPE, "estimator": {"branches": 2, "branch_at": share}})
    assert Branching.of(recipe, steps) == Branching(2, steps - 1, prefix)
    heun = recipe.model_copy(update={"scheduler": "heun"})
    assert Branching.of(heun, steps).decisions == 2 * steps - 2


def test_branches_leave_the_gradient_s_mean_as_it_is():
    """All trees of coins with P(1) = p: Σ Â·∇log π has the mean of the reward's own gradient."""
    p, tree = 0.3, Branching(branches=2, decisions=2, prefix=1)

    def reward(one: int, two: int) -> float:
        return [[1.0, -2.0], [0.5, 4.0]][one][two]

    mean = torch.zeros(2, dtype=torch.float64)
    for coins in itertools.product((0, 1), repeat=6):  # two prefixes, two branches of each
        first, second = (coins[0], coins[0], coins[1], coins[1]), coins[2:]
        chance = torch.prod(double(*(p if coin else 1 - p for coin in coins)))
        rewards = double([reward(*pair) for pair in zip(first, second, strict=True)])
        values = tree.values(rewards.expand(2, 1, 4))
        credit = values - tree.baseline(leave_one_out, values)
        score = double(first, second)[:, None] / p - (1 - double(first, second)[:, None]) / (1 - p)
        mean += chance * (credit * score).mean((1, 2))
    exact = double(
        sum((reward(1, b) - reward(0, b)) * (p if b else 1 - p) for b in (0, 1)),
        sum((reward(a, 1) - reward(a, 0)) * (p if a else 1 - p) for a in (0, 1)),
    )
    assert torch.allclose(mean, exact)


def test_advantages_of_decisions_are_in_one_unit_or_in_each_group_s():
    credit = (
        torch.randn(3, 2, 4, generator=torch.manual_seed(0)).double()
        * double(1, 5, 9)[:, None, None]
    )
    baseline = partial(Branching(1, 3, 0).baseline, group_mean)
    each = grpo.advantages(credit, baseline=baseline)
    assert torch.allclose(each.square().mean(-1), torch.ones_like(each[..., 0]), rtol=1e-4)
    shared = grpo.advantages(credit, True, baseline)
    assert float(shared.square().mean()) == pytest.approx(1, rel=1e-4)
    assert torch.allclose(shared / each, (shared / each)[..., :1])


def drawn(canvas, estimator, batch=8, process=0, processes=1):
    recipe = parse_recipe({**RECIPE, "estimator": estimator, "rollout_batch_size": batch})
    mine = dealt(plan_iteration(recipe, PROMPTS, 0), process, processes)
    tpm = randomised(new_tpm(recipe, canvas.backbone))
    clock = Stopwatch(torch.device("cpu"))
    return roll_out(canvas, tpm, mine, recipe, 0, BatchSize(batch), clock)


@pytest.fixture(scope="module")
def canvas():
    return Canvas(WORLD.backbone())


def test_branches_decide_alike_up_to_where_they_part(canvas):
    found = drawn(canvas, TWO)
    assert [t.index for t in found.trajectories] == [0, 2, 4, 6, 1, 3, 5, 7]
    pairs = found.ratios.T.unflatten(0, (4, 2))  # by prefix, branch and decision
    assert torch.equal(pairs[:, 0, :2], pairs[:, 1, :2])
    assert (pairs[:, 0, 2:] != pairs[:, 1, 2:]).all()
    assert len(set(found.ratios[0].tolist())) == 4
    assert len(set(found.ratios[2].tolist())) == 8
    for part in (drawn(canvas, TWO, batch=3), drawn(canvas, TWO, process=0, processes=1)):
        assert torch.allclose(part.ratios, found.ratios, atol=1e-6)
    half = drawn(canvas, TWO, process=1, processes=2)
    assert torch.allclose(half.ratios, found.ratios[:, 4:], atol=1e-6)


def test_branches_share_the_evaluations_of_their_prefix():
    backbone = backbone_from_pipeline(quiet(tiny_sd3()))
    canvas = Canvas(backbone, guidance_scale=1.0, size=16)
    with counted(backbone.pipe.transformer) as rows:
        drawn(canvas, TWO)
    assert rows == [2, 4, 4, 8, 8]  # two noises, two prefixes of each, two branches of each
    with counted(backbone.pipe.transformer) as rows:
        drawn(canvas, {})
    assert rows == [2, 8, 8, 8, 8]


def test_previews_lead_to_the_image(canvas):
    found, reward = drawn(canvas, {"stepwise": 0.0}, batch=3), FlowError(WORLD)
    prompts = [t.prompt for t in found.trajectories]
    assert len(found.previews) == 4
    errors = [
        -float(reward.score(images, prompts)["noise"].mean())
        for images in (*found.previews, found.images)
    ]
    assert errors == sorted(errors, reverse=True)
    sigma, latents, velocity = (
        getattr(found.seen, name) for name in ("sigma", "latents", "velocity")
    )
    clean = latents - sigma[..., None, None, None] * velocity
    assert torch.allclose(torch.stack([torch.stack(s) for s in found.previews]), clean, atol=1e-5)
    assert drawn(canvas, {}).previews == []
