"""Modules that decide more than deviations: what is drawn, what γ does, what stays as it was."""

import json

import numpy as np
import pytest
import torch

from asyncdiff_cli.engine import (
    AsyncDiffError,
    EachPolicy,
    FixedDeviation,
    InputError,
    LearnedDeviation,
    Synchronous,
    VelocityScale,
    attach,
    desync,
    load_tpm,
    transfer,
)
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.policies.actions import DEVIATION, SCALING, SPACING, check_actions
from asyncdiff_cli.engine.policies.asking import only_deviates
from asyncdiff_cli.engine.policies.learned import SampledDeviation
from asyncdiff_cli.engine.policies.modules import check_is_schedule
from asyncdiff_cli.engine.policies.observation import Observation
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
from asyncdiff_cli.engine.training import grpo
from benchmarks.gaussian import World
from tests.conftest import make_case
from tests.helpers.modules import SIZE, answers, randomised, seen, tiny
from tests.helpers.rounding import assert_rounded, terms

BOTH = (DEVIATION, SCALING)
STEPS = 4
WORLD = World.of_images([0.3])


@pytest.fixture(scope="module")
def case():
    return make_case("sd3")


def both(case, moved=True, actions=BOTH):
    torch.manual_seed(0)
    tpm = TimestepPredictionModule(**case.backbone.adapter.channels, actions=actions, **SIZE)
    return randomised(tpm) if moved else tpm


def drawn(case, policy, gamma=1.0):
    return case.draw(policy, gamma=gamma)


def sure(deviation, scale):
    """A module of the world that decides this everywhere."""
    tpm = TimestepPredictionModule(**WORLD.backbone().adapter.channels, bound=1.0, actions=BOTH)
    with torch.no_grad():
        for ratio, bias in ((deviation / 2 + 0.5, slice(0, 2)), (scale - 0.5, slice(2, 4))):
            excesses = torch.tensor([ratio, 1 - ratio])  # below 1, where φ − 1 is e^x
            tpm.head[-1].bias[bias] = excesses.log()
    return tpm


def test_actions_are_known_and_in_order():
    assert check_actions(["scale", "deviation"]) == BOTH
    assert check_actions([SCALING]) == (SCALING,)
    for wrong in ([], ["speed"], [SCALING, SCALING]):
        with pytest.raises(ValueError, match="actions are deviation, scale, grid, one or more"):
            check_actions(wrong)
        with pytest.raises(InputError, match="actions are deviation, scale, grid"):
            tiny(actions=wrong)
    with pytest.raises(ValueError, match="grid goes with deviation, scale or both"):
        check_actions([SPACING])


@pytest.mark.parametrize("actions", [BOTH, (SCALING,)])
def test_untrained_or_at_gamma_0_it_is_the_synchronous_sampler_to_the_bit(case, actions):
    stock = drawn(case, Synchronous()).latents
    assert torch.equal(
        drawn(case, LearnedDeviation(both(case, moved=False, actions=actions)), 2.0).latents, stock
    )
    learned = LearnedDeviation(both(case, actions=actions))
    assert torch.equal(drawn(case, learned, 0.0).latents, stock)
    assert not torch.allclose(drawn(case, learned).latents, stock, atol=1e-3)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_both_actions_do_what_the_closed_form_says(gamma):
    """All evaluations but the first are decided about."""
    deviation, scale = 0.4, 0.8
    canvas, prompt = Canvas(WORLD.backbone()), [*WORLD.spectra]
    text, policy = canvas.encode(prompt), LearnedDeviation(sure(deviation, scale))
    result = canvas.sample([text[p] for p in prompt], [3], policy, STEPS, gamma)
    assert torch.allclose(result.deviations, torch.tensor(deviation), atol=1e-6)
    grid = WORLD.grid(STEPS)
    told = desync.cond_sigmas(grid, torch.full((STEPS - 1,), gamma * deviation).double())
    scales = torch.tensor([1.0, *[1 + gamma * (scale - 1)] * (STEPS - 1)])
    factor = transfer(grid, told, WORLD.std(prompt)[0], velocity_scale=scales)
    image, noise = result.latents.flatten(2)[0]
    assert torch.allclose(image, factor * noise, atol=1e-5)


def test_a_pipeline_that_it_is_attached_to_draws_the_same_bits(case):
    policy = LearnedDeviation(both(case))
    ours = drawn(case, policy, 1.5)
    with attach(case.pipe, policy, 1.5) as trace:
        theirs = case.draw_stock()
    assert torch.equal(ours.images, theirs)
    assert torch.equal(trace.deviations, ours.deviations)


def test_runs_and_images_of_one_policy_keep_apart(case):
    """What one decided of its velocities is nothing to the next."""
    policy = LearnedDeviation(both(case))
    first = drawn(case, policy)
    assert torch.equal(drawn(case, policy).latents, first.latents)
    each = EachPolicy([policy, VelocityScale(0.8)], [1.0, 1.0])
    mixed = drawn(case, each)
    count = 4 * (terms(case.pipe.transformer) + terms(policy.tpm))
    assert_rounded(mixed.latents[:1], first.latents[:1], count)
    other = drawn(case, VelocityScale(0.8)).latents[1:]
    assert_rounded(mixed.latents[1:], other, count)


def test_a_module_s_file_says_its_actions_and_older_ones_need_not(tmp_path):
    tpm = randomised(tiny(actions=BOTH))
    tpm.save_pretrained(tmp_path)
    loaded = load_tpm(tmp_path)
    assert loaded.actions == BOTH
    assert torch.equal(answers(loaded, seen()), answers(tpm, seen()))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config.pop("actions") == ["deviation", "scale"]
    tiny().save_pretrained(tmp_path)
    path.write_text(json.dumps(config))
    assert load_tpm(tmp_path).actions == (DEVIATION,)
    path.write_text(json.dumps({**config, "actions": ["speed"]}))
    with pytest.raises(AsyncDiffError, match="actions are deviation, scale, grid"):
        load_tpm(tmp_path)


def test_the_deviation_is_answered_as_by_a_module_of_its_own():
    alone, two = tiny(), tiny(actions=BOTH)
    shared = {k: v for k, v in randomised(alone).state_dict().items() if "head.2" not in k}
    two.load_state_dict(shared, strict=False)
    with torch.no_grad():
        two.head[-1].weight[:2], two.head[-1].bias[:2] = alone.head[-1].weight, alone.head[-1].bias
    observation = seen(batch=3, decisions=2)
    first = answers(two, observation).unflatten(1, (2, 2))[:, :, 0]
    assert_rounded(first, answers(alone, observation), terms(alone))


def test_a_schedule_holds_no_velocity_scale():
    with pytest.raises(InputError, match="decides deviation and scale, and a schedule has"):
        check_is_schedule("DIR", BOTH)
    check_is_schedule("DIR", ("deviation",))
    assert only_deviates(LearnedDeviation(tiny()))
    assert only_deviates(FixedDeviation(0.5))
    assert not only_deviates(LearnedDeviation(tiny(actions=BOTH)))
    assert not only_deviates(VelocityScale(0.9))


def test_draws_of_both_make_one_probability():
    """Of a decision the sum over its actions, of a trajectory that over its decisions."""
    canvas, prompts = Canvas(WORLD.backbone()), [*WORLD.spectra] * 2
    text, tpm = canvas.encode(prompts), randomised(sure(0.2, 0.9))
    policy = SampledDeviation(tpm, [np.random.default_rng(seed) for seed in (1, 2)])
    result = canvas.sample([text[p] for p in prompts], [3, 4], policy, STEPS)
    ratios, decisions = torch.stack(policy.ratios), STEPS - 1
    assert ratios.shape == (2 * decisions, 2)
    assert torch.equal(result.deviations.T, desync.deviation_from_ratio(ratios[::2], 1.0))
    assert torch.equal(torch.stack(policy.scales), 0.5 + ratios[1::2])
    excesses = tpm(Observation.stack(policy.seen))
    each = grpo.beta(*excesses).log_prob(ratios.double())
    by_decision = grpo.log_prob(*excesses, ratios, decisions)
    assert torch.allclose(by_decision, each[::2] + each[1::2])
    assert torch.allclose(grpo.log_prob(*excesses, ratios), by_decision.sum(0))
