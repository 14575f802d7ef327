"""The scheduler inside pipelines that know nothing of it, against `attach` and the stock one."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    FluxImg2ImgPipeline,
    StableDiffusion3Img2ImgPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image

from asyncdiff_cli.engine import (
    AsyncFlowMatchEulerScheduler,
    InputError,
    ScheduledDeviation,
    attach,
)
from tests.conftest import tiny_flux, tiny_sd3

DEVIATIONS = [0.5, -1.0, 0.3]
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
"""The second repeats the time before it, which the first evaluation has too."""


def draw(pipe, **kwargs) -> torch.Tensor:
    settings = {
        "prompt": "a cat",
        "num_inference_steps": len(DEVIATIONS) + 1,
        "guidance_scale": 3.0,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    }
    return pipe(**{**settings, **kwargs}).images


def asynchronous(pipe, **settings) -> None:
    pipe.scheduler = AsyncFlowMatchEulerScheduler.from_config(pipe.scheduler.config, **settings)


@pytest.fixture(params=[tiny_sd3, tiny_flux], ids=["sd3", "flux"])
def pipe(request):
    made = request.param()
    made.set_progress_bar_config(disable=True)
    return made


def test_a_pipeline_draws_what_it_draws_attached(pipe):
    stock = draw(pipe)
    with attach(pipe, ScheduledDeviation(DEVIATIONS)) as trace:
        expected = draw(pipe)
    asynchronous(pipe, deviations=DEVIATIONS)
    drawn = draw(pipe)
    # FLUX's pipeline divides by the 1000 that its model multiplies by
    assert torch.allclose(drawn, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(drawn, stock, rtol=1e-3, atol=1e-3)
    assert pipe.scheduler.cond_sigmas.numpy() == pytest.approx(trace.cond_sigmas[0].numpy())


def test_without_deviation_or_gamma_it_is_the_stock_scheduler_to_the_bit(pipe):
    stock, scheduler = draw(pipe), pipe.scheduler
    for settings in ({"deviations": DEVIATIONS, "gamma": 0.0}, {"deviations": 0.0}, {}):
        pipe.scheduler = scheduler
        asynchronous(pipe, **settings)
        assert torch.equal(draw(pipe), stock)


@pytest.mark.parametrize(
    ("family", "image_to_image"),
    [(tiny_sd3, StableDiffusion3Img2ImgPipeline), (tiny_flux, FluxImg2ImgPipeline)],
)
def test_image_to_image_begins_late_and_synchronously(family, image_to_image):
    pipe = image_to_image(**family().components)
    pipe.set_progress_bar_config(disable=True)
    picture = Image.fromarray(
        np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    )
    given = {"image": picture, "strength": 0.75, "num_inference_steps": 4}
    with attach(pipe, ScheduledDeviation([0.5, 0.3])) as trace:
        expected = draw(pipe, **given)
    assert trace.cond_sigmas.shape == (1, 3)
    asynchronous(pipe, deviations=[-1.0, 0.5, 0.3])  # the first belongs to where nothing begins
    assert torch.allclose(draw(pipe, **given), expected, rtol=1e-5, atol=1e-6)
    assert pipe.scheduler.cond_sigmas[1] == pipe.scheduler.sigmas[1]


def test_a_saved_pipeline_is_loaded_where_only_the_package_was_imported(tmp_path):
    pipe = tiny_sd3()
    asynchronous(pipe, deviations=DEVIATIONS, gamma=0.5)
    pipe.save_pretrained(tmp_path)
    code = f"""
import asyncdiff_cli
from diffusers import DiffusionPipeline
scheduler = DiffusionPipeline.from_pretrained({str(tmp_path)!r}).scheduler
scheduler.set_timesteps(4)
print(scheduler.config.deviations, scheduler.config.gamma, scheduler.timesteps.tolist())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pipe.scheduler.set_timesteps(4)
    assert run.stdout.split("\n")[-2] == f"{DEVIATIONS} 0.5 {pipe.scheduler.timesteps.tolist()}"


def test_one_number_holds_for_runs_of_any_length():
    scheduler = AsyncFlowMatchEulerScheduler(deviations=0.5)
    for sigmas, told in (([1.0], [1.0]), ([1.0, 0.75, 0.5], [1.0, 0.625, 0.375])):
        scheduler.set_timesteps(sigmas=sigmas)
        assert scheduler.cond_sigmas.tolist() == told


def test_arrays_are_kept_as_numbers_that_can_be_saved():
    for deviations in (np.array(DEVIATIONS), torch.tensor(DEVIATIONS, dtype=torch.float64)):
        scheduler = AsyncFlowMatchEulerScheduler(deviations=deviations)
        assert scheduler.config.deviations == DEVIATIONS
        assert '"deviations"' in scheduler.to_json_string()


def test_settings_of_the_stock_scheduler_are_kept():
    stock = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.25, shift_terminal=0.02
    )
    made = AsyncFlowMatchEulerScheduler.from_config(stock.config, deviations=0.5)
    kept = {**made.config}
    assert (kept.pop("deviations"), kept.pop("gamma")) == (0.5, 1.0)
    ours = {name: value for name, value in kept.items() if not name.startswith("_")}
    assert ours == {n: v for n, v in stock.config.items() if not n.startswith("_")}
    stock.set_timesteps(5, mu=0.7)
    made.set_timesteps(5, mu=0.7)
    assert torch.equal(made.sigmas, stock.sigmas)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deviations": [0.5, 1.5]}, r"1.5 is outside \[-1, 1\]"),
        ({"deviations": []}, "no deviation given"),
        ({"deviations": "half"}, "a deviation is a number"),
        ({"deviations": None}, "a deviation is a number"),
        ({"deviations": True}, "a deviation is a number"),
        ({"gamma": float("nan")}, "gamma is a finite number"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        AsyncFlowMatchEulerScheduler(**settings)


def test_a_setting_that_there_is_not_is_refused():
    """diffusers leaves it out, and the stock picture would be drawn."""
    config = FlowMatchEulerDiscreteScheduler(shift=3.0).config
    with pytest.raises(InputError, match="has no setting 'deviation'"):
        AsyncFlowMatchEulerScheduler.from_config(config, deviation=0.5)
    with_unused = AsyncFlowMatchEulerScheduler.from_config(
        config, return_unused_kwargs=True, deviations=0.5, other=1
    )
    assert with_unused[1] == {"other": 1}


def test_a_run_of_another_length_is_refused():
    scheduler = AsyncFlowMatchEulerScheduler(deviations=DEVIATIONS)
    with pytest.raises(
        InputError, match="3 deviations are for runs of 4 steps, and this one has 6"
    ):
        scheduler.set_timesteps(6)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    ("foreign", "settings"),
    [
        (DPMSolverMultistepScheduler, FLOW),
        (UniPCMultistepScheduler, FLOW),
        (FlowMatchLCMScheduler, {"shift": 3.0}),
    ],
)
def test_the_configuration_of_another_solver_is_refused(tmp_path, foreign, settings, loaded):
    other = foreign(**settings)
    if loaded:
        other.save_pretrained(tmp_path)
        other = foreign.from_pretrained(tmp_path)
    scheduler = AsyncFlowMatchEulerScheduler.from_config(other.config, deviations=0.5)
    with pytest.raises(InputError, match="give that of the model's FlowMatchEuler"):
        scheduler.set_timesteps(4)


def test_what_would_mix_the_two_times_is_refused():
    scheduler = AsyncFlowMatchEulerScheduler(deviations=0.5)
    with pytest.raises(InputError, match="leave them out"):
        scheduler.set_timesteps(timesteps=[1000.0, 500.0])
    scheduler.set_timesteps(2)
    x = torch.zeros(1, 4, 4)
    with pytest.raises(InputError, match="a time per token"):
        scheduler.step(x, scheduler.timesteps[0], x, per_token_timesteps=torch.ones(1, 4))
    scheduler = AsyncFlowMatchEulerScheduler(deviations=0.5, invert_sigmas=True)
    with pytest.raises(InputError, match="invert_sigmas"):
        scheduler.set_timesteps(2)


def test_a_policy_is_not_added_to_the_schedulers_own_deviations():
    pipe = tiny_sd3()
    asynchronous(pipe, deviations=0.5)
    with (
        pytest.raises(InputError, match="has deviations of its own"),
        attach(pipe, ScheduledDeviation(DEVIATIONS)),
    ):
        pass
