"""Several policies in one batch."""

import pytest
import torch

from asyncdiff_cli.engine import (
    AsyncDiffError,
    Combined,
    DetailDaemon,
    EachPolicy,
    FixedDeviation,
    InputError,
    LearnedDeviation,
    ScheduledDeviation,
    Synchronous,
    TimeShift,
    VelocityScale,
    attach,
    policy_from_dict,
    sample,
)
from tests.conftest import PROMPTS, make_case, seeded
from tests.helpers.integration import Answers
from tests.helpers.modules import randomised, tpm_for
from tests.helpers.rounding import assert_rounded, terms

POLICIES = [
    FixedDeviation(0.5),
    DetailDaemon(),
    DetailDaemon(),
    Synchronous(),
    TimeShift(),
    VelocityScale(0.8),
    Combined(0.3, 1.1),
    ScheduledDeviation([0.9, 0.0, -0.4]),
]
GAMMAS = [1.5, 1.0, 0.5, 1.0, 2.0, 0.7, 1.0, -1.0]


def draw(case, policy, gamma=1.0, images=8):
    settings = {**case.ours, "num_inference_steps": 4, "output_type": "latent"}
    settings.pop("negative_prompt", None)
    prompts = (PROMPTS * images)[:images]
    return sample(case.backbone, prompts, policy, gamma, generator=seeded(images), **settings)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_an_image_is_the_one_of_its_policy_alone_to_the_bit(name):
    case = make_case(name)
    together = draw(case, EachPolicy(POLICIES, GAMMAS))
    for i, (policy, gamma) in enumerate(zip(POLICIES, GAMMAS, strict=True)):
        alone = draw(case, policy, gamma)
        assert torch.equal(together.latents[i], alone.latents[i]), policy
        assert torch.equal(together.cond_sigmas[i], alone.cond_sigmas[i]), policy
        assert torch.equal(together.deviations[i], alone.deviations[i]), policy


def test_attach_equals_sample():
    case = make_case("sd3")
    policy = EachPolicy([DetailDaemon(0.3), TimeShift()], [1.5, 1.0])
    result = case.draw(policy)
    with attach(case.pipe, policy) as trace:
        assert torch.equal(case.draw_stock(), result.images)
    assert torch.equal(trace.cond_sigmas, result.cond_sigmas)
    assert torch.equal(trace.deviations, result.deviations)


class Counting(LearnedDeviation):
    asked: tuple[int, ...] = ()

    def __call__(self, state):
        self.asked += (len(state.latents),)
        return super().__call__(state)


def test_a_module_runs_once_on_its_own_images():
    case = make_case("sd3")
    learned = Counting(randomised(tpm_for(case)))
    count = case.terms + 3 * terms(learned.tpm)
    policies = [Synchronous(), learned, learned, learned]
    together = draw(case, EachPolicy(policies, [1.0, 1.0, 2.0, 2.0]), images=4)
    assert learned.asked == (3, 3, 3)
    for i, gamma in ((1, 1.0), (2, 2.0), (3, 2.0)):
        alone = draw(case, learned, gamma, images=4)
        assert_rounded(together.deviations[i], alone.deviations[i], count)
        assert_rounded(together.latents[i], alone.latents[i], count)


def test_without_a_scaling_policy_the_velocity_is_left_alone():
    each = EachPolicy([Synchronous(), FixedDeviation(0.5)], [1.0, 1.0])
    assert each.velocity_scale(torch.tensor(0.5), torch.tensor([0.5, 0.4]), 1.0) is None


def test_deviations_per_image_are_those_of_a_run_of_neighbours():
    case = make_case("sd3")
    policy = FixedDeviation([0.2, 0.4])
    result = draw(case, EachPolicy([Synchronous(), policy, policy], [1.0] * 3), images=3)
    assert result.deviations[:, 0].tolist() == pytest.approx([0, 0.2, 0.4])
    with pytest.raises(InputError, match="2 deviations for 3 images"):
        draw(case, EachPolicy([policy] * 3, [1.0] * 3), images=3)


def test_each_policy_is_held_to_its_own_bound():
    case = make_case("sd3")
    with pytest.raises(AsyncDiffError, match=r"after step 1 of 4 is outside \[-1, 1\]: 1.5"):
        draw(case, EachPolicy([DetailDaemon(), Answers(1.5)], [1.0, 1.0]), images=2)


def test_the_outer_gamma_is_1():
    case = make_case("sd3")
    for gamma in (0.0, 2.0):
        with pytest.raises(InputError, match=f"gamma must be 1, not {gamma:g}"):
            case.draw(EachPolicy([Synchronous()] * 2, [1.0] * 2), gamma)


def test_there_is_a_policy_and_a_gamma_per_image():
    with pytest.raises(InputError, match="2 policies with 1 values of gamma"):
        EachPolicy([Synchronous()] * 2, [1.0])
    with pytest.raises(InputError, match="0 policies"):
        EachPolicy([], [])
    with pytest.raises(InputError, match="gamma is a finite number"):
        EachPolicy([Synchronous()], [float("nan")])
    with pytest.raises(InputError, match="3 policies for 2 images"):
        make_case("sd3").draw(EachPolicy([Synchronous()] * 3, [1.0] * 3))


def test_a_description_makes_the_same_policy():
    each = EachPolicy(POLICIES, GAMMAS)
    assert policy_from_dict(each.to_dict()) == each
    same = EachPolicy([DetailDaemon()] * 5 + [Synchronous()], [1.0] * 6)
    assert same.to_dict()["images"] == [5, 1]
    assert policy_from_dict(same.to_dict()) == same


def test_a_damaged_description_gets_one_line():
    described = EachPolicy(POLICIES, GAMMAS).to_dict()
    with pytest.raises(InputError, match=r"policy each: .*differ in length"):
        policy_from_dict({**described, "gammas": [1.0]})
    with pytest.raises(InputError, match="policy each is not made of the settings"):
        policy_from_dict({k: v for k, v in described.items() if k != "images"})
