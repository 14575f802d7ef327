"""Images that begin alike: the first evaluation is made once for them, and nothing else changes."""

import pytest
import torch

from asyncdiff_cli.engine import (
    Combined,
    DetailDaemon,
    EachPolicy,
    EpsilonScaling,
    LearnedDeviation,
    ModelDetailBoost,
    NoiseShift,
    SamplerDetailBoost,
    SpectralDeviation,
    Synchronous,
    TimeShift,
    VelocityScale,
    sample,
)
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
from asyncdiff_cli.engine.sampling.sharing import first_equal
from benchmarks.calls import counted
from tests.conftest import PROMPTS, make_case
from tests.helpers.modules import randomised, tpm_for
from tests.helpers.rounding import assert_rounded, terms

POLICIES = (
    Synchronous(),
    VelocityScale(0.8),
    Combined(0.3, 1.1),
    DetailDaemon(0.3, start=0.0, start_offset=0.2),
    EpsilonScaling(1.1),
    NoiseShift(1.5),
    ModelDetailBoost(start_step=0),
    SamplerDetailBoost(start_step=0),
    TimeShift(),
    SpectralDeviation(),
)
"""With all that scale the first velocity or begin at step 0."""
STEPS = 3
BEGINNINGS = [(PROMPTS[0], 0), (PROMPTS[1], 0), (PROMPTS[0], 1)]
"""A prompt with two noises, and a noise with two prompts."""


def drawn(case, policies, share_first, beginnings=BEGINNINGS):
    """Each policy from each beginning, in turns; the result, and the rows of the model's calls."""
    starts = beginnings * len(policies)
    each = [policy for policy in policies for _ in beginnings]
    settings = {**case.ours, "num_inference_steps": STEPS, "output_type": "latent"}
    settings.pop("negative_prompt", None)
    with counted(case.pipe.transformer) as rows:
        result = sample(
            case.backbone,
            [prompt for prompt, _ in starts],
            EachPolicy(each, [1.0] * len(each)),
            generator=[torch.Generator().manual_seed(seed) for _, seed in starts],
            negative_prompt=["a dog"] * len(starts) if "negative_prompt" in case.ours else None,
            share_first=share_first,
            **settings,
        )
    return result, rows


def assert_shared(case, policies=POLICIES, evaluations=STEPS, tolerance=None):
    """What is shared is the same up to rounding, and as many rows fewer as it should be."""
    (ours, rows), (theirs, whole) = (drawn(case, policies, share) for share in (True, False))
    assert ours.latents.dtype is theirs.latents.dtype
    count = tolerance or evaluations * terms(case.pipe.transformer)
    for name in ("latents", "cond_sigmas", "deviations"):
        assert_rounded(getattr(ours, name), getattr(theirs, name), count)
    images = len(BEGINNINGS) * len(policies)
    branches = sum(whole) // (images * evaluations)
    assert sum(whole) == branches * images * evaluations
    assert len(rows) == len(whole)
    assert sum(rows) == branches * (len(BEGINNINGS) + images * (evaluations - 1))


@pytest.mark.parametrize(
    "name", ["sd3", "flux", "flux-cfg", "flux2", "flux2-klein", "qwen-image", "z-image"]
)
def test_images_of_equal_noise_and_text_are_evaluated_once(name):
    assert_shared(make_case(name), POLICIES[:4])


@pytest.mark.parametrize(("solver", "evaluations"), [("euler", 3), ("heun", 5), ("unipc", 3)])
def test_whatever_the_policies_and_the_solver(solver, evaluations):
    case = make_case("sd3")
    case.pipe.scheduler = make_scheduler(solver, "sd3", case.pipe.scheduler.config)
    assert_shared(case, evaluations=evaluations)


def test_a_module_sees_the_same_of_the_first_evaluation():
    case = make_case("sd3")
    learned = LearnedDeviation(randomised(tpm_for(case)))
    count = STEPS * (terms(case.pipe.transformer) + terms(learned.tpm))
    assert_shared(case, (learned, VelocityScale(0.8)), tolerance=count)


def test_a_batch_of_different_images_keeps_its_bits():
    case = make_case("sd3")
    (ours, rows), (theirs, whole) = (drawn(case, [TimeShift()], share) for share in (True, False))
    assert rows == whole
    assert torch.equal(ours.latents, theirs.latents)


def test_rows_are_equal_in_all_or_not_at_all():
    one, other = torch.tensor([[1.0, 2, 1, 1, 2], [0, 0, 0, 3, 0]])[..., None]
    assert first_equal([one, other]) == [0, 1, 0, 3, 1]
    assert first_equal([torch.tensor([[1.0], [torch.nan], [torch.nan], [1]])]) == [0, 1, 2, 0]
