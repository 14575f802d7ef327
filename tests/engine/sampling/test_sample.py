"""What `sample` draws, against the untouched pipeline and against loops written out by hand."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from asyncdiff_cli.engine import (
    AsyncDiffError,
    AsyncDiffWarning,
    FixedDeviation,
    InputError,
    ScheduledDeviation,
    Synchronous,
    backbone_from_pipeline,
    sample,
)
from tests.conftest import LATER, PROMPTS, Case, make_case, seeded
from tests.helpers.by_hand import by_hand
from tests.helpers.rounding import assert_rounded, rounding
from tests.helpers.solvers import SOLVERS, with_scheduler


@pytest.mark.parametrize("policy", [(), (Synchronous(), 2.0), (FixedDeviation(0.7), 0.0)])
def test_synchronous_is_the_stock_pipeline_bit_for_bit(case: Case, policy: tuple[Any, ...]):
    result = case.draw(*policy)
    assert torch.equal(result.images, case.draw_stock())
    assert torch.equal(result.latents, case.stock_latents())


@pytest.mark.parametrize(("name", "scheduler"), SOLVERS)
def test_every_solver_is_the_stock_pipeline_bit_for_bit(name: str, scheduler: str):
    case = with_scheduler(name, scheduler)
    result = case.draw(FixedDeviation(0.7), 0.0)
    assert torch.equal(result.images, case.draw_stock())
    sigmas = case.pipe.scheduler.sigmas[: result.cond_sigmas.shape[1]]
    assert torch.equal(result.cond_sigmas, sigmas.expand(2, -1))


@pytest.mark.parametrize("name", ["sd3", "flux", *LATER])
def test_bf16_is_the_stock_pipeline_bit_for_bit(name: str):
    case = make_case(name)
    case.pipe.to(torch.bfloat16)
    assert torch.equal(case.draw(FixedDeviation(0.7), 0.0).images, case.draw_stock())


@torch.no_grad()
@pytest.mark.parametrize("deviations", [[0.5, 0.5], [0.8, -0.6], [0.0, 1.0]])
def test_a_deviation_equals_the_loop_by_hand(case: Case, deviations: list[float]):
    result = case.draw(FixedDeviation(deviations), 1.5)
    expected = by_hand(case, deviations, 1.5)
    assert_rounded(result.latents, expected, case.terms)
    moved = (result.latents - case.draw().latents).abs().max()
    assert moved > 10 * rounding(case.terms) * expected.abs().max()


def test_each_image_of_a_batch_is_the_image_drawn_alone(case: Case):
    deviations = [0.8, -0.6]
    together = case.draw(FixedDeviation(deviations), 1.5)
    for i, prompt in enumerate(PROMPTS):
        settings = {**case.ours, "num_inference_steps": 4, "output_type": "pt"}
        alone = sample(
            case.backbone,
            prompt,
            FixedDeviation(deviations[i]),
            1.5,
            generator=[seeded(2)[i]],
            **settings,
        )
        assert_rounded(together.images[i], alone.images[0], case.terms)
        assert torch.equal(together.cond_sigmas[i], alone.cond_sigmas[0])
        assert torch.equal(together.deviations[i], alone.deviations[0])


@pytest.mark.parametrize(("name", "scheduler"), SOLVERS)
def test_the_record_has_one_time_per_evaluation(name: str, scheduler: str):
    case = with_scheduler(name, scheduler)
    result = case.draw(FixedDeviation(0.5), 1.5)
    evaluations = 2 * 4 - 1 if scheduler == "heun" else 4
    sigmas = case.pipe.scheduler.sigmas
    assert result.cond_sigmas.shape == (2, evaluations)
    assert result.deviations.shape == (2, evaluations - 1)
    assert (result.deviations == 0.5).all()
    for k in range(evaluations - 1):
        expected = max(float(sigmas[k] + 1.75 * (sigmas[k + 1] - sigmas[k])), 1e-3)
        assert result.cond_sigmas[0, k + 1] == pytest.approx(expected, abs=1e-6)


def test_a_schedule_is_resampled_to_the_run():
    case = make_case("sd3")
    schedule = ScheduledDeviation([0.0, 0.6])
    result = case.draw(schedule, num_inference_steps=5)
    assert torch.allclose(result.deviations[0], torch.tensor([0.0, 0.2, 0.4, 0.6]))


def test_one_step_has_no_decision():
    result = make_case("sd3").draw(FixedDeviation(1.0), 2.0, num_inference_steps=1)
    assert result.cond_sigmas.shape == (2, 1)
    assert result.deviations.shape == (2, 0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd3", "flux", "flux-cfg"])
def test_embeddings_take_the_place_of_prompts(name: str):
    case = make_case(name)
    pipe = case.pipe
    if name == "sd3":
        embeds, no_embeds, pooled, no_pooled = case.encode()
    else:
        embeds, pooled, _ = case.encode()
        no_embeds, no_pooled, _ = case.encode(["a dog"] * 2)
    given = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    if name != "flux":
        given |= {"negative_prompt_embeds": no_embeds, "negative_pooled_prompt_embeds": no_pooled}
    bare = copy.copy(pipe)
    for component in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        setattr(bare, component, None)
    settings = {k: v for k, v in case.ours.items() if k != "negative_prompt"}
    settings |= {"num_inference_steps": 4, "output_type": "pt", "generator": seeded(2)}
    result = sample(backbone_from_pipeline(bare), policy=FixedDeviation(0.5), **given, **settings)
    assert torch.equal(result.images, case.draw(FixedDeviation(0.5)).images)


def test_latents_take_the_place_of_generators(case: Case):
    noise = case.backbone.adapter.prepare_latents(
        (2, *size_of(case)), torch.float32, seeded(2), None
    )
    given = case.draw(FixedDeviation(0.5), latents=noise, generator=None)
    assert torch.equal(given.images, case.draw(FixedDeviation(0.5)).images)


def size_of(case: Case) -> tuple[int, int]:
    size = case.backbone.size
    return case.ours.get("height", size), case.ours.get("width", size)


def test_the_output_types(case: Case):
    images = case.draw(output_type="pil").images
    height, width = size_of(case)
    assert [image.size for image in images] == [(width, height)] * 2
    assert case.draw(output_type="pt").images.shape == (2, 3, height, width)
    latent = case.draw(output_type="latent")
    assert latent.images is latent.latents


def test_on_step_sees_every_evaluation(case: Case):
    states = []
    case.draw(FixedDeviation(0.5), on_step=states.append)
    assert [(s.index, s.num_evaluations) for s in states] == [(k, 4) for k in range(4)]
    for state in states:
        assert torch.equal(state.clean, state.latents - state.sigma * state.velocity)
        assert len(state.prompt_embeds) == len(state.pooled_prompt_embeds) == 2


def test_nothing_is_left_on_the_model(case: Case):
    *_, last = case.pipe.transformer.modules()
    last.register_forward_hook(fail := Failing())
    try:
        with pytest.raises(RuntimeError, match="in the model"):
            case.draw(FixedDeviation(0.5))
    finally:
        last._forward_hooks.clear()
    assert fail.calls == 1
    assert not any(module._forward_pre_hooks for module in case.pipe.transformer.modules())
    assert torch.equal(case.draw().images, case.draw_stock())


class Failing:
    calls = 0

    def __call__(self, *_):
        self.calls += 1
        raise RuntimeError("in the model")


def test_nan_weights_stop_the_run_at_the_first_step():
    case = make_case("sd3")
    with torch.no_grad():
        case.pipe.transformer.proj_out.bias.fill_(math.nan)
    with pytest.raises(AsyncDiffError, match="NaN or infinity in the latents after step 1 of 4"):
        case.draw()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_inference_steps": 0}, "steps is a whole number from 1 to 1000, not 0"),
        ({"num_inference_steps": 2.5}, "steps is a whole number from 1 to 1000, not 2.5"),
        ({"num_inference_steps": True}, "steps is a whole number from 1 to 1000, not True"),
        ({"gamma": math.nan}, "gamma is a finite number, not nan"),
        ({"gamma": "1"}, "gamma is a finite number"),
        ({"gamma": True}, "gamma is a finite number, not True"),
        ({"guidance_scale": math.nan}, "guidance_scale is a finite number, not nan"),
        ({"true_cfg_scale": math.inf}, "true_cfg_scale is a finite number, not inf"),
        ({"height": "16"}, "height is a whole number of pixels, not '16'"),
        ({"width": 16.0}, "width is a whole number of pixels, not 16.0"),
        ({"output_type": "pill"}, "unknown output_type 'pill'; did you mean 'pil'"),
        ({"height": 18}, "height is 18, and this backbone needs a multiple of 4, for example 16"),
        ({"width": 0}, "width is 0"),
        ({"height": -16}, "height is -16"),
        ({"generator": seeded(3)}, "3 generators for 2 images"),
        ({"generator": [1, 2]}, r"generator is a torch.Generator, or one per image, not \[1, 2\]"),
        ({"generator": 3}, "generator is a torch.Generator, or one per image, not 3"),
        ({"max_sequence_length": 10**9}, "is a whole number from 1 to 4096, not 1000000000"),
        ({"max_sequence_length": 0}, "max_sequence_length is a whole number from 1 to 4096, not 0"),
        ({"negative_prompt": 3}, "negative prompts are strings"),
        ({"negative_prompt": "\ud800"}, "a negative prompt is not Unicode text"),
        ({"policy": "fixed:0.5"}, "a policy is an object such as FixedDeviation"),
        ({"policy": FixedDeviation}, "a policy is an object such as FixedDeviation"),
        ({"negative_prompt": ["x"]}, "1 negative prompts for 2 images"),
        ({"latents": torch.zeros(2, 3)}, r"latents of shape \[2, 3\]; this run needs \[2, "),
        ({"prompt_embeds": torch.zeros(2, 1, 1)}, "either prompts or prompt_embeds"),
        ({"negative_prompt_embeds": torch.zeros(2, 1, 1)}, "in pairs"),
    ],
)
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_bad_input_gets_one_clear_line(name: str, settings: dict[str, Any], line: str):
    case = make_case(name)
    with pytest.raises(InputError, match=line) as caught:
        case.draw(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sd3-plain", "flux"])
def test_a_negative_prompt_without_effect_is_told(name: str):
    case = make_case(name)
    with pytest.warns(AsyncDiffWarning, match="the negative prompt has no effect: "):
        case.draw(negative_prompt="a dog", true_cfg_scale=1.0, output_type="latent")


def test_an_argument_that_is_not_known_is_refused_as_by_python(sd3):
    with pytest.raises(TypeError, match="unexpected keyword argument 'negative_promt'"):
        sample(backbone_from_pipeline(sd3), "a cat", negative_promt="a dog")


def test_no_prompt_is_refused(sd3):
    for prompts in ([], None):
        with pytest.raises(InputError, match="prompt"):
            sample(backbone_from_pipeline(sd3), prompts)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_prompts_need_text_encoders(name: str):
    case = make_case(name)
    case.pipe.text_encoder_2 = None
    with pytest.raises(InputError, match="no text encoders: pass prompt_embeds"):
        case.draw()


def test_the_same_seed_draws_the_same_bytes(case: Case):
    first, second = (case.draw(FixedDeviation(0.4), 1.2, output_type="pil") for _ in range(2))
    for one, other in zip(first.images, second.images, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
