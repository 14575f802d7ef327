import pytest
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from asyncdiff_cli.engine import InputError, backbone_from_pipeline
from asyncdiff_cli.engine.backbones.schedulers import check_scheduler, make_scheduler


@pytest.mark.parametrize("name", ["dpmpp", "unipc"])
def test_the_multistep_solvers_run_on_the_model_s_shift(name):
    scheduler = make_scheduler(name, "sd3", FlowMatchEulerDiscreteScheduler(shift=3.0).config)
    assert scheduler.config.use_flow_sigmas
    assert scheduler.config.prediction_type == "flow_prediction"
    assert scheduler.config.flow_shift == 3.0
    check_scheduler(scheduler, "sd3")


def test_a_solver_can_be_exchanged_for_another_and_back():
    euler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    there = make_scheduler("unipc", "sd3", euler.config)
    back = make_scheduler("euler", "sd3", there.config)
    euler.set_timesteps(5)
    back.set_timesteps(5)
    assert euler.sigmas.tolist() == back.sigmas.tolist()


@pytest.mark.parametrize("scheduler_class", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_solvers_of_noise_prediction_are_refused(sd3, scheduler_class):
    sd3.scheduler = scheduler_class()
    with pytest.raises(InputError, match="use_flow_sigmas=True"):
        backbone_from_pipeline(sd3)


def test_refusals_name_what_would_do(sd3, flux):
    sd3.scheduler = DDIMScheduler()
    with pytest.raises(InputError, match=r"DDIMScheduler.*FlowMatchEulerDiscreteScheduler"):
        backbone_from_pipeline(sd3)
    flux.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(InputError, match=r"cannot take the grid of flux; use make_sch"):
        backbone_from_pipeline(flux)
    with pytest.raises(InputError, match="did you mean 'unipc'"):
        make_scheduler("unicp", "sd3", {})
    with pytest.raises(InputError, match="invert_sigmas"):
        check_scheduler(FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "sd3")
