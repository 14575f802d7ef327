"""The nodes for ComfyUI, in interfaces that stand in for it, against the project's own loop."""

import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asyncdiff_cli.engine import Schedule, ScheduledDeviation
from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
from asyncdiff_cli.engine.policies.spectral import optimal_deviations
from asyncdiff_cli.engine.policies.transfer import transfer, velocity_coefficient
from asyncdiff_cli.engine.sampling.loop import integrate
from tests.conftest import make_case
from tests.helpers.by_hand import noise
from tests.helpers.modules import randomised, tiny
from tests.helpers.rounding import assert_rounded, terms
from tests.integrations import comfy
from tests.integrations.conftest import FOLDER

STD = torch.tensor([[0.02, 0.1, 0.5, 1.0, 3.0]], dtype=torch.float64)
START = torch.ones_like(STD)
DEVIATIONS = [0.8, -1.0, 0.5, 1.0, 0.0]
"""For six steps. The second repeats the time before it, the last is synchronous."""


@pytest.fixture
def scheduler():
    made = make_scheduler("euler", "sd3", {"shift": 3.0})
    made.set_timesteps(len(DEVIATIONS) + 1)
    return made


def gaussian(x, time, condition=None):
    """The exact velocity of Gaussian data."""
    return velocity_coefficient(time.double()[:, None], STD) * x


def wrapped(pack, schedule, gamma=1.0, function=comfy.sample_euler, **options):
    """A sampler as the node makes it, of a schedule's text or the deviations."""
    if not isinstance(schedule, str):
        schedule = ", ".join(map(str, schedule))
    node = pack.nodes["AsyncDiffSchedule"]()
    return node.wrap(comfy.KSAMPLER(function, **options), schedule, gamma)[0]


def drawn(sampler, sigmas, start=START, velocity=gaussian):
    """The last latents, and the times that the model was told, [evaluations]."""
    model = comfy.Model(velocity)
    latents = comfy.draw(sampler, comfy.Guider(model), sigmas, start)
    return latents, torch.cat(model.times)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5, -1.0])
def test_euler_is_the_projects_loop(pack, scheduler, gamma):
    """The same times to the bit; the same latents in fp64 as the closed form, but for rounding."""
    sigmas = scheduler.sigmas
    latents, times = drawn(wrapped(pack, DEVIATIONS, gamma), sigmas.double())

    def velocity(latents, timestep, sigma, cond_sigma):
        return gaussian(latents, cond_sigma)

    text, policy = TextConditions(torch.zeros(1, 1, 1)), ScheduledDeviation(DEVIATIONS)
    expected, cond_sigmas, _ = integrate(velocity, scheduler, START, policy, gamma, text)
    assert torch.equal(times.float(), torch.cat(cond_sigmas))
    torch.testing.assert_close(latents[0], transfer(sigmas, times, STD[0]), rtol=1e-13, atol=1e-13)
    assert_rounded(latents.float(), expected.float(), terms=20 * len(times))


def test_a_sd3_draws_with_guidance_what_sample_draws(pack):
    case = make_case("sd3")
    deviations, gamma = [0.5, -0.3, 0.8], 0.7
    expected = case.draw(ScheduledDeviation(deviations), gamma, output_type="latent")
    pipe = case.pipe
    positive, negative, pooled, no_pooled = case.encode()

    def velocity(x, time, condition):
        return pipe.transformer(x, *condition, 1000 * time).sample

    model = comfy.Model(velocity)
    conditions = (negative, no_pooled), (positive, pooled)
    guider = comfy.Guider(model, conditions, case.ours["guidance_scale"])
    start = noise(case, pipe.transformer.config.in_channels)
    pipe.scheduler.set_timesteps(4)
    with torch.no_grad():
        sampler = wrapped(pack, deviations, gamma)
        latents = comfy.draw(sampler, guider, pipe.scheduler.sigmas, start)
    assert torch.equal(torch.stack(model.times[::2], 1), expected.cond_sigmas)
    assert_rounded(latents, expected.latents, 4 * terms(pipe.transformer))


@pytest.mark.parametrize(
    ("schedule", "gamma"), [(DEVIATIONS, 0.0), ("0", 1.0), ([0, 0, -0.0, 0, 0], 2.0)]
)
@pytest.mark.parametrize("function", [comfy.sample_euler, comfy.sample_heun])
def test_without_deviation_or_gamma_the_sampler_keeps_its_bits(
    pack, scheduler, schedule, gamma, function
):
    stock, _ = drawn(comfy.KSAMPLER(function), scheduler.sigmas)
    same, times = drawn(wrapped(pack, schedule, gamma, function), scheduler.sigmas)
    assert torch.equal(same, stock)
    assert set(times.tolist()) == set(scheduler.sigmas[:-1].tolist())


def test_a_synchronous_evaluation_of_a_run_keeps_its_bits(pack, scheduler):
    def sample_once(model, x, sigmas, extra_args=None, **options):
        return model(x, sigmas[:1], **extra_args)

    model = comfy.Model(gaussian)
    model.apply_model = lambda x, time, condition: x / 3000  # x − (x − this) is another number
    start = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    sampler = wrapped(pack, DEVIATIONS, function=sample_once)
    latents = comfy.draw(sampler, comfy.Guider(model), scheduler.sigmas, start)
    assert torch.equal(latents, start / 3000)


def test_without_gamma_sigmas_may_rise(pack):
    """As FlipSigmas makes them, to find the noise of a picture."""
    sigmas = torch.tensor([0.1, 0.5, 1.0])
    stock, _ = drawn(comfy.KSAMPLER(comfy.sample_euler), sigmas)
    assert torch.equal(drawn(wrapped(pack, "0.5", gamma=0.0), sigmas)[0], stock)


def test_one_number_is_for_every_step_as_the_constant_node_has_it(pack, scheduler, caplog):
    expected, times = drawn(wrapped(pack, [0.4] * len(DEVIATIONS)), scheduler.sigmas)
    stock = comfy.KSAMPLER(comfy.sample_euler)
    constant = pack.nodes["AsyncDiffScheduleConstant"]().wrap(stock, 0.4, 1.0)[0]
    for sampler in (wrapped(pack, "0.4"), constant):
        latents, told = drawn(sampler, scheduler.sigmas)
        assert torch.equal(told, times)
        assert torch.equal(latents, expected)
    assert not caplog.records


@pytest.mark.parametrize(
    "text", ["0.8, -1, 0.5", " 0.8\n-1\n0.5\n", "[0.8, -1.0,\n0.5]", "8e-1 -1,.5,"]
)
def test_a_schedule_is_numbers_between_commas_or_spaces(pack, text):
    assert pack.schedules.read_schedule(text).deviations == (0.8, -1.0, 0.5)


def test_a_run_that_begins_late_begins_synchronously(pack):
    """As image-to-image does, and the second half of split sigmas."""
    sigmas = torch.tensor([0.6, 0.45, 0.25, 0.0])
    latents, times = drawn(wrapped(pack, [1.0, -1.0], 1.5), sigmas)
    assert times[0] == sigmas[0]
    assert times[1:].tolist() == pytest.approx([0.225, 0.55], rel=1e-6)
    assert torch.allclose(latents[0], sigmas[0] * transfer(sigmas, times, STD[0]), rtol=1e-12)


def test_a_run_that_stops_early_takes_its_own_deviations(pack):
    """As the first half of split sigmas does."""
    _, times = drawn(wrapped(pack, [1.0, 0.5]), torch.tensor([1.0, 0.9, 0.7, 0.4]))
    assert times.tolist() == pytest.approx([1.0, 0.8, 0.6])


def test_times_stay_above_the_least_and_below_the_first(pack):
    sigmas = torch.tensor([1.0, 0.5, 0.001, 0.0])
    _, times = drawn(wrapped(pack, [-1.0, 1.0], 3.0), sigmas)
    assert times.tolist() == pytest.approx([1.0, 1.0, 0.001])


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_for_another_number_of_steps_it_is_resampled_and_says_so(pack, caplog, count):
    deviations = (0.8, 0.5, -0.1)
    expected = ScheduledDeviation(deviations).resampled(count)
    with caplog.at_level(logging.WARNING):
        resampled = pack.schedules.Schedule(deviations).for_run(count)
    assert resampled == pytest.approx(expected, abs=1e-15)
    assert f"has 3 deviations and the run takes {count}: it is resampled" in caplog.text


def test_two_evaluations_at_a_time_are_told_the_same(pack):
    sigmas = torch.tensor([1.0, 0.8, 0.5, 0.0])
    _, times = drawn(wrapped(pack, [0.5, 1.0], function=comfy.sample_heun), sigmas)
    assert times.tolist() == pytest.approx([1.0, 0.7, 0.7, 0.2, 0.2])


def test_between_the_grids_times_the_offset_is_interpolated(pack):
    """At 0.8 it is −0.1 and at 0.4 −0.2; at 1 and 0 there is none."""
    sigmas = torch.tensor([1.0, 0.8, 0.4, 0.0])
    _, times = drawn(wrapped(pack, [0.5, 0.5], function=comfy.sample_midpoint), sigmas)
    assert times.tolist() == pytest.approx([1.0, 0.85, 0.7, 0.45, 0.2, 0.1])


def test_beyond_the_grid_a_model_is_told_its_time(pack):
    times = pack.sampler.Times([0.2, 0.5, 1.0], [0.1, -0.1, 0.0])
    assert times.at([1.25, 0.125]) == [1.25, 0.125]


def test_a_masked_latent_stays_what_it_was(pack, scheduler):
    """And the model sees it at the sampler's σ, not at the time that it is told."""
    mask, latent, seen = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0]]), 2 * START, []

    def velocity(x, time, condition):
        seen.append(x)
        return gaussian(x, time)

    guider = comfy.Guider(comfy.Model(velocity))
    latents = comfy.draw(wrapped(pack, "1"), guider, scheduler.sigmas, START, latent, mask)
    kept = mask[0] == 0
    assert torch.equal(latents[:, kept], latent[:, kept])
    expected = scheduler.sigmas[:-1, None] * START + (1 - scheduler.sigmas[:-1, None]) * latent
    assert torch.allclose(torch.cat(seen)[:, kept], expected[:, kept])


def test_a_wrapper_of_another_node_goes_on_at_the_samplers_time(pack, scheduler):
    seen = []

    def wrapper(apply_model, args):
        seen.append(args["timestep"])
        return apply_model(args["input"], args["timestep"], **args["c"])

    guider = comfy.Guider(comfy.Model(gaussian))
    guider.model_options["model_function_wrapper"] = wrapper
    latents = comfy.draw(wrapped(pack, DEVIATIONS), guider, scheduler.sigmas, START)
    assert torch.equal(latents, drawn(wrapped(pack, DEVIATIONS), scheduler.sigmas)[0])
    assert torch.equal(torch.cat(seen), scheduler.sigmas[:-1])
    assert guider.model_options["model_function_wrapper"] is wrapper


def test_the_samplers_own_options_are_kept(pack):
    taken = {}

    def sample_other(model, x, sigmas, extra_args=None, callback=None, disable=None, **options):
        taken.update(options)
        return comfy.sample_euler(model, x, sigmas, extra_args)

    options = {"extra_options": {"eta": 0.3}, "inpaint_options": {"random": True}}
    sampler = wrapped(pack, "0.5", function=sample_other, **options)
    drawn(sampler, torch.tensor([1.0, 0.5, 0.0]))
    assert taken == {"eta": 0.3}
    assert sampler.inpaint_options == {"random": True}


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("1.2", "deviation 1 is 1.2: give a number in [-1, 1]"),
        ("0.5, nan", "deviation 2 is nan"),
        ("0.5, -inf", "deviation 2 is -inf"),
        ("0.8, 0.5x", "'0.5x' is no number: give deviations such as 0.8, 0.5, 0.1, or the path"),
        ("0.8,, 0.5", "'' is no number"),
        ("  \n", "there is no deviation"),
        ("[]", "there is no deviation"),
        ("missing.json", "there is no file missing.json: give its whole path"),
        ("nul\0.json", "there is no file"),
        ("a.json\nb.json", "'a.json' is no number"),
    ],
)
def test_what_is_no_schedule_is_refused_in_one_line(pack, schedule, message):
    refused(pack, schedule, message)


def refused(pack, schedule, message):
    """When the workflow is queued, and when it runs."""
    said = pack.nodes["AsyncDiffSchedule"].VALIDATE_INPUTS(schedule)
    assert message in said
    assert "\n" not in said
    with pytest.raises(ValueError, match=re.escape(message)):
        wrapped(pack, schedule)


def test_a_schedule_that_another_node_gives_is_read_when_it_runs(pack):
    node = pack.nodes["AsyncDiffSchedule"]
    assert node.VALIDATE_INPUTS() is True
    assert node.IS_CHANGED(sampler=None, gamma=1.0) == ""


@pytest.mark.parametrize(
    ("name", "value"), [("deviation", 1.5), ("deviation", float("nan")), ("gamma", float("inf"))]
)
def test_a_constant_out_of_range_is_refused(pack, name, value):
    given = {"deviation": 0.5, "gamma": 1.0, name: value}
    with pytest.raises(ValueError, match=rf"^{name} .*{value}.*give a"):
        pack.nodes["AsyncDiffScheduleConstant"]().wrap(comfy.KSAMPLER(comfy.sample_euler), **given)


@pytest.mark.parametrize("sampling", [comfy.EPS, comfy.ImageToImage])
def test_other_models_are_refused(pack, scheduler, sampling):
    kind = type("ModelSampling", (comfy.ModelSamplingDiscreteFlow, sampling), {})
    guider = comfy.Guider(comfy.Model(gaussian, kind))
    kind.noise_scaling = comfy.CONST.noise_scaling
    with pytest.raises(ValueError, match=f"only flow models .* and {sampling.__name__}: take the"):
        comfy.draw(wrapped(pack, "0.5"), guider, scheduler.sigmas, START)


@pytest.mark.parametrize("sigmas", [[0.0, 0.5, 1.0], [14.6, 3.0, 0.0], [1.0, 0.5, 0.5, 0.0]])
def test_sigmas_that_do_not_fall_from_one_are_refused(pack, sigmas):
    with pytest.raises(ValueError, match="the sigmas of a flow model fall, from at most 1"):
        drawn(wrapped(pack, "0.5"), torch.tensor(sigmas))


def test_a_sampler_of_a_kind_of_its_own_is_refused(pack):
    class Restarting(comfy.KSAMPLER):
        def sample(self, *args, **kwargs):
            raise NotImplementedError

    node = pack.nodes["AsyncDiffSchedule"]()
    for sampler in (Restarting(comfy.sample_euler), object()):
        with pytest.raises(ValueError, match=f"of the kind {type(sampler).__name__} cannot be"):
            node.wrap(sampler, "0.5", 1.0)


def test_a_guider_that_leaves_the_options_out_is_an_error(pack, scheduler):
    class Deaf(comfy.Guider):
        def __call__(self, x, timestep, model_options, seed):
            return super().__call__(x, timestep, {}, seed)

    with pytest.raises(RuntimeError, match="without `model_options`, so that nothing was told"):
        comfy.draw(wrapped(pack, "0.5"), Deaf(comfy.Model(gaussian)), scheduler.sigmas, START)


def test_a_schedule_file_of_the_project_is_read(pack, scheduler, tmp_path, caplog):
    path = tmp_path / "a.json"
    made = {"command": "asyncdiff calibrate"}
    Schedule(deviations=tuple(DEVIATIONS), steps=6, backbone="mini", made=made).save(path)
    expected, _ = drawn(wrapped(pack, DEVIATIONS), scheduler.sigmas)
    for text in (str(path), f'"{path}"\n'):
        assert torch.equal(drawn(wrapped(pack, text), scheduler.sigmas)[0], expected)
    assert not caplog.records
    node = pack.nodes["AsyncDiffSchedule"]
    before = node.IS_CHANGED(str(path))
    Schedule(deviations=(0.1,), steps=2).save(path)
    assert node.IS_CHANGED(str(path)) != before


def test_a_file_for_another_solver_warns(pack, tmp_path, caplog):
    path = tmp_path / "a.json"
    Schedule(deviations=(0.5,), steps=2, solver="dpmpp").save(path)
    wrapped(pack, str(path))
    assert "is for dpmpp, and the sampler's function is sample_euler: another" in caplog.text
    caplog.clear()

    def sample_dpmpp_2m():
        raise NotImplementedError

    wrapped(pack, str(path), function=sample_dpmpp_2m)
    assert not caplog.records


FITS = {"format": 1, "deviations": [0.5, 0.1], "steps": 3, "solver": "euler"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it does not hold JSON"),
        ("[" * 100_000, "it does not hold JSON"),
        (b"\xff\xfe{}", "it does not hold JSON"),
        ("[0.5]", "it has no list of `deviations`"),
        ({**FITS, "deviations": "0.5, 0.1"}, "it has no list of `deviations`"),
        ({**FITS, "deviations": []}, "3 steps need 2 deviations, not 0"),
        ({**FITS, "deviations": [0.5, "0.1"]}, "deviation 2 is '0.1': give a number in [-1, 1]"),
        ({**FITS, "deviations": [True, 0.1]}, "deviation 1 is True"),
        ({**FITS, "deviations": [0.5, float("nan")]}, "deviation 2 is nan"),
        ({**FITS, "deviations": [0.5, -1.01]}, "deviation 2 is -1.01"),
        ({**FITS, "steps": 4}, "4 steps need 3 deviations, not 2"),
        ({**FITS, "steps": "3"}, "`steps` is '3', and no number from 2 to 1000"),
        ({**FITS, "format": 2}, "its format is 2, and this node reads format 1"),
        ({**FITS, "solver": ["euler"]}, "its solver is ['euler'], and none of euler, heun"),
        ({**FITS, "solver": "heun"}, "whose two evaluations at one time cannot be told apart"),
    ],
)
def test_a_file_that_is_no_schedule_is_refused_in_one_line(pack, tmp_path, content, message):
    path = tmp_path / "a.json"
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(pack, str(path), message)


def test_a_folder_and_a_large_file_are_refused(pack, tmp_path, monkeypatch):
    (tmp_path / "folder.json").mkdir()
    refused(pack, str(tmp_path / "folder.json"), "there is no file")
    monkeypatch.setattr(pack.schedules, "LARGEST", 1 << 20)
    (tmp_path / "large.json").write_bytes(b" " * ((1 << 20) + 1))
    refused(pack, str(tmp_path / "large.json"), "it has more than 1 MiB")


def test_nodes_are_as_comfyui_expects_them(pack):
    names = pack.pack.NODE_DISPLAY_NAME_MAPPINGS
    assert set(names) == set(pack.nodes)
    readme = (FOLDER / "README.md").read_text()
    for key, node in pack.nodes.items():
        assert callable(getattr(node, node.FUNCTION))
        assert node.RETURN_TYPES == ("SAMPLER",)
        assert names[key] in readme
        assert all(f"`{name}`" in readme for name in node.INPUT_TYPES()["required"])


EXAMPLES = {"flux-async-schedule": "AsyncDiffSchedule", "flux-async-module": "AsyncDiffModule"}


def test_examples_are_those_of_the_folder():
    assert {path.stem for path in (FOLDER / "workflows").iterdir()} == set(EXAMPLES)


def example(name):
    """A workflow, and its nodes by their ids."""
    workflow = json.loads((FOLDER / "workflows" / f"{name}.json").read_text())
    return workflow, {node["id"]: node for node in workflow["nodes"]}


@pytest.mark.parametrize(("name", "ours"), EXAMPLES.items())
def test_an_example_is_a_workflow_with_the_node_before_the_sampler(name, ours, pack):
    workflow, nodes = example(name)
    for number, source, slot, target, place, kind in workflow["links"]:
        output, taken = nodes[source]["outputs"][slot], nodes[target]["inputs"][place]
        assert number in output["links"]
        assert (output["type"], taken["type"], taken["link"]) == (kind, kind, number)
    linked = [link for node in workflow["nodes"] for link in [i["link"] for i in node["inputs"]]]
    assert sorted(linked) == sorted(link[0] for link in workflow["links"])

    path = [
        (nodes[a]["type"], nodes[b]["type"])
        for _, a, _, b, _, k in workflow["links"]
        if k == "SAMPLER"
    ]
    assert path == [("KSamplerSelect", ours), (ours, "SamplerCustomAdvanced")]
    (node,) = (node for node in nodes.values() if node["type"] == ours)
    widgets = [n for n in pack.nodes[ours].INPUT_TYPES()["required"] if n != "sampler"]
    assert len(node["widgets_values"]) == len(widgets)


def test_the_examples_schedule_is_the_spectral_one_of_its_grid(pack):
    _, nodes = example("flux-async-schedule")
    ours = "AsyncDiffSchedule"
    ((schedule, gamma),) = (n["widgets_values"] for n in nodes.values() if n["type"] == ours)
    (steps,) = (n["widgets_values"][1] for n in nodes.values() if n["type"] == "BasicScheduler")
    even = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
    shift = math.exp(1.15)  # ComfyUI's of FLUX
    grid = (shift * even / (1 + (shift - 1) * even)).tolist()
    expected = optimal_deviations((*grid, 0.0))
    given = pack.schedules.read_schedule(schedule).deviations
    assert list(given) == pytest.approx(expected, abs=0.01)
    assert gamma == 0.5


RUN = """
import sys
blocked = ("asyncdiff_cli", "diffusers", "transformers", "pydantic", "safetensors")
sys.modules.update(dict.fromkeys(blocked))
import torch
import comfy as stand_in
from pathlib import Path
stand_in.install()
nodes = stand_in.load(Path(sys.argv[1])).nodes
stock = stand_in.KSAMPLER(stand_in.sample_euler)
(sampler,) = nodes["AsyncDiffSchedule"]().wrap(stock, "0.5, 1", 1.0)
model = stand_in.Model(lambda x, time, condition: x)
stand_in.draw(sampler, stand_in.Guider(model), torch.tensor([1.0, 0.75, 0.5, 0]), torch.ones(1, 2))
print(*[time.item() for time in model.times])
"""


def test_the_folder_alone_is_enough(tmp_path):
    """In a process that knows neither this project nor what it is built on."""
    folder = tmp_path / "custom_nodes" / "asyncdiff"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(comfy.__file__, tmp_path)
    command = [sys.executable, "-c", RUN, str(folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1.0", "0.625", "0.25"]


@pytest.mark.slow
@pytest.mark.skipif("COMFYUI" not in os.environ, reason="COMFYUI=FOLDER says where ComfyUI is")
def test_in_comfyui_itself(tmp_path):
    randomised(tiny()).save_pretrained(tmp_path)
    script = Path(__file__).with_name("in_comfyui.py")
    command = [sys.executable, str(script), os.environ["COMFYUI"], str(FOLDER), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
