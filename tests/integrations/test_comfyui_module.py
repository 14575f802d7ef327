"""The node that runs a trained module in ComfyUI, against the module in the project's own loop."""

import json
import re

import pytest
import torch

from asyncdiff_cli.engine import LearnedDeviation
from asyncdiff_cli.engine.policies.tpm import mode
from tests.conftest import make_case
from tests.helpers.by_hand import noise, places
from tests.helpers.modules import SIZE, randomised, seen, tiny, tpm_for
from tests.helpers.rounding import assert_rounded, terms
from tests.integrations import comfy

CHANNELS = 4, 8, 6
"""Of `tiny`: latents, sequence, pooled."""
GRID = torch.tensor([1.0, 0.9, 0.7, 0.4, 0.0])


@pytest.fixture
def folder(tmp_path):
    return saved(randomised(tiny()), tmp_path / "tpm")


def saved(tpm, path):
    tpm.save_pretrained(path)
    return path


def wrapped(pack, folder, gamma=1.0, function=comfy.sample_euler):
    return pack.nodes["AsyncDiffModule"]().wrap(comfy.KSAMPLER(function), str(folder), gamma)[0]


def guided(velocity=lambda x, time, condition: x / 2, kind=comfy.SD3, **options):
    """A guider around a velocity, with a prompt of `tiny`'s channels."""
    _, sequence, pooled = CHANNELS
    text = torch.linspace(-1, 1, 3 * sequence).reshape(1, 3, -1), torch.ones(1, pooled)
    return comfy.Guider(kind(velocity), **{"text": text, **options})


def start(batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, CHANNELS[0], 4, 6, generator=generator)


@pytest.mark.parametrize("options", [{}, {"bound": 1.0, "patch_size": 4, "layers": 1}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_module_decides_to_the_bit_as_in_the_project(pack, tmp_path, options, dtype):
    tpm, shown = randomised(tiny(**options)).eval(), seen(dtype=dtype)
    with torch.no_grad():
        expected = 2 * tpm.bound * (mode(*tpm(shown))[0] - 0.5)
    module = pack.module.load_module(str(saved(tpm, tmp_path)))
    times = [shown.cond_sigma, shown.sigma, shown.sigma_next, shown.progress]
    text = shown.prompt_embeds, shown.pooled_prompt_embeds
    deviations = module(shown.latents[0], shown.velocity[0], torch.cat(times), *text)
    assert torch.equal(deviations, expected)
    assert len(set(expected.tolist())) == 2


def test_mini_with_a_module_draws_what_sample_draws(pack, tmp_path):
    case, gamma = make_case("mini"), 1.5
    tpm = randomised(tpm_for(case))
    expected = case.draw(LearnedDeviation(tpm), gamma, output_type="latent")
    embeds = case.encode()
    sd3_draws(pack, case, embeds, saved(tpm, tmp_path), gamma, expected)


def test_each_image_has_times_of_its_own(pack, tmp_path):
    case, gamma = make_case("sd3"), 0.7
    tpm = randomised(tpm_for(case))
    expected = case.draw(LearnedDeviation(tpm), gamma, output_type="latent")
    assert (expected.cond_sigmas[0] != expected.cond_sigmas[1]).any()
    embeds = case.encode()
    sd3_draws(pack, case, embeds, saved(tpm, tmp_path), gamma, expected)


def sd3_draws(pack, case, embeds, folder, gamma, expected):
    """The same latents and times, with guidance by two conditions."""
    transformer, scheduler = case.pipe.transformer, case.pipe.scheduler
    positive, negative, pooled, no_pooled = embeds

    def velocity(x, time, condition):
        return transformer(x, *condition, 1000 * time).sample

    model = comfy.SD3(velocity)
    conditions = (negative, no_pooled), (positive, pooled)
    guider = comfy.Guider(model, conditions, case.ours["guidance_scale"], (positive, pooled))
    scheduler.set_timesteps(4)
    latents = noise(case, transformer.config.in_channels)
    with torch.no_grad():
        latents = comfy.draw(wrapped(pack, folder, gamma), guider, scheduler.sigmas, latents)
    count = 4 * terms(transformer)
    assert_rounded(torch.stack(model.times[::2], 1), expected.cond_sigmas, count)
    assert_rounded(latents, expected.latents, count)


def test_a_flux_is_shown_as_the_project_shows_it(pack, tmp_path):
    """ComfyUI's latents of FLUX are not packed, and the project's are."""
    case, gamma = make_case("flux"), 1.0
    tpm = randomised(tpm_for(case))
    expected = case.draw(LearnedDeviation(tpm), gamma, output_type="latent")
    transformer = case.pipe.transformer
    embeds, pooled, text_ids = case.encode()
    x = noise(case, transformer.config.in_channels // 4)
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    image_ids = case.pipe._prepare_latent_image_ids(2, rows, columns, "cpu", x.dtype)
    scale = torch.full((2,), float(case.ours["guidance_scale"]))

    def velocity(x, time, condition):
        ids = {"txt_ids": text_ids, "img_ids": image_ids}
        drawn = transformer(places(x), embeds, pooled, time, guidance=scale, **ids).sample
        return torch.nn.functional.pixel_shuffle(drawn.mT.unflatten(2, (rows, columns)), 2)

    model = comfy.Flux(velocity)
    guider = comfy.Guider(model, text=(embeds, pooled))
    sigmas = torch.cat([expected.cond_sigmas[0, :1], case.pipe.scheduler.sigmas[1:]])
    folder = saved(tpm, tmp_path)
    with torch.no_grad():
        latents = comfy.draw(wrapped(pack, folder, gamma), guider, sigmas, x)
    count = 4 * terms(transformer)
    assert_rounded(torch.stack(model.times, 1), expected.cond_sigmas, count)
    assert_rounded(places(latents), expected.latents, count)


def test_without_gamma_the_sampler_keeps_its_bits_whatever_the_model(pack, folder):
    guider = comfy.Guider(comfy.Model(lambda x, time, condition: x / 2))
    stock = comfy.draw(comfy.KSAMPLER(comfy.sample_heun), guider, GRID, start())
    sampler = wrapped(pack, folder, 0.0, comfy.sample_heun)
    assert torch.equal(comfy.draw(sampler, guider, GRID, start()), stock)


def test_a_run_of_one_step_has_nothing_to_choose(pack, folder):
    guider = guided()
    comfy.draw(wrapped(pack, folder), guider, torch.tensor([1.0, 0.0]), start())
    assert torch.cat(guider.inner_model.times).tolist() == [1.0, 1.0]


def test_a_sampler_serves_one_run_after_another(pack, folder):
    sampler = wrapped(pack, folder)
    first, again = (comfy.draw(sampler, guided(), GRID, start()) for _ in range(2))
    assert torch.equal(first, again)


def test_a_prompt_is_for_all_images_of_a_batch(pack, folder):
    both = comfy.draw(wrapped(pack, folder), guided(), GRID, start())
    alone = comfy.draw(wrapped(pack, folder), guided(), GRID, start()[1:])
    assert_rounded(both[1:], alone, 10_000)


def test_a_sampler_sees_all_of_its_model(pack, folder):
    def sample_looking(model, x, sigmas, extra_args=None, **options):
        assert model.inner_model.inner_model.model_sampling
        return comfy.sample_euler(model, x, sigmas, extra_args)

    looked = comfy.draw(wrapped(pack, folder, function=sample_looking), guided(), GRID, start())
    assert torch.equal(looked, comfy.draw(wrapped(pack, folder), guided(), GRID, start()))


@pytest.mark.parametrize("function", [comfy.sample_heun, comfy.sample_midpoint])
def test_a_sampler_that_evaluates_more_than_once_a_step_is_refused(pack, folder, function):
    with pytest.raises(RuntimeError, match=r"more than once a step, or .* take one of euler"):
        comfy.draw(wrapped(pack, folder, function=function), guided(), GRID, start())


def test_a_model_of_another_family_is_refused(pack, folder):
    with pytest.raises(
        ValueError, match=r"SD3, SD3\.5 and FLUX\.1, and this model is Model: .* dis"
    ):
        comfy.draw(wrapped(pack, folder), guided(kind=comfy.Model), GRID, start())


def test_several_prompts_at_once_are_refused(pack, folder):
    guider = guided()
    guider.conds["positive"] *= 2
    with pytest.raises(ValueError, match="by one prompt, and the positive side has 2 conditions"):
        comfy.draw(wrapped(pack, folder), guider, GRID, start())


def test_a_guider_that_shows_no_prompt_is_refused(pack, folder):
    with pytest.raises(ValueError, match="the positive side has 0 conditions"):
        comfy.draw(wrapped(pack, folder), guided(text=None), GRID, start())


def test_a_model_without_a_pooled_embedding_is_refused(pack, folder):
    guider = guided()
    del guider.conds["positive"][0]["model_conds"]["y"]
    with pytest.raises(
        ValueError, match="a pooled embedding of the prompt, and this model has none"
    ):
        comfy.draw(wrapped(pack, folder), guider, GRID, start())


def test_a_module_for_other_channels_is_refused(pack, tmp_path):
    folder = saved(tiny(prompt_channels=16), tmp_path)
    with pytest.raises(
        ValueError, match=r"trained for .* 4, 16, 6 channels, .* has 4, 8, 6: train"
    ):
        comfy.draw(wrapped(pack, folder), guided(), GRID, start())


def test_latents_that_are_not_finite_are_an_error(pack, folder):
    guider = guided(lambda x, time, condition: x * torch.nan)
    with pytest.raises(RuntimeError, match="NaN or infinity in the latents at step 1"):
        comfy.draw(wrapped(pack, folder), guider, GRID, start())


def test_a_guider_that_leaves_the_options_out_is_an_error(pack, folder):
    class Deaf(comfy.Guider):
        def __call__(self, x, timestep, model_options, seed):
            return super().__call__(x, timestep, {}, seed)

    heard = guided()
    deaf = Deaf(heard.inner_model)
    deaf.conds = heard.conds
    with pytest.raises(RuntimeError, match="without `model_options`, so that nothing was told"):
        comfy.draw(wrapped(pack, folder), deaf, GRID, start())


def refused(pack, text, message):
    """When the workflow is queued, and when it runs."""
    said = pack.nodes["AsyncDiffModule"].VALIDATE_INPUTS(str(text))
    assert message in said
    assert "\n" not in said
    with pytest.raises(ValueError, match=re.escape(message)):
        wrapped(pack, text)


def test_what_is_no_folder_of_a_module_is_refused(pack, folder):
    refused(pack, " ", "there is no module: give the path of the folder")
    refused(pack, folder.parent, f"{folder.parent} holds no module: it has no config.json")
    (folder / "model.safetensors").unlink()
    refused(pack, f'"{folder}"\n', f"{folder} holds no module: it has no model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bound": 1.5}, "its bound cannot be 1.5"),
        ({"bound": "1"}, "its bound cannot be '1'"),
        ({"layers": 0}, "its layers cannot be 0"),
        ({"width": 1.5}, "its width cannot be 1.5"),
        ({"text_tokens": True}, "its text_tokens cannot be True"),
        ({"latent_channels": 1 << 40}, f"its latent_channels cannot be {1 << 40}"),
        ({"heads": 3}, "3 heads do not divide a width of 16"),
    ],
)
def test_a_configuration_that_none_can_have_is_refused(pack, folder, change, message):
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    refused(pack, folder, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it does not hold JSON"),
        ("[]", "it says no latent_channels, prompt_channels"),
        ("{}", "it says no latent_channels, prompt_channels"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(pack, folder, content, message):
    (folder / "config.json").write_text(content)
    refused(pack, folder, message)


@pytest.mark.parametrize("damage", ["cut", "other", "half"])
def test_damaged_weights_are_refused_in_one_line(pack, folder, damage):
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "half":  # of a file that is another module's
        saved(tiny(layers=1), folder.parent / "b")
        weights.write_bytes((folder.parent / "b" / "model.safetensors").read_bytes())
    else:
        weights.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"does not hold the module of its config\.json: [^\n]+$"):
        wrapped(pack, folder)


def test_another_module_in_the_same_folder_is_read_again(pack, folder):
    node = pack.nodes["AsyncDiffModule"]
    before = node.IS_CHANGED(module=str(folder), gamma=1.0)
    assert node.IS_CHANGED(module=str(folder), gamma=1.0) == before
    saved(tiny(), folder)
    assert node.IS_CHANGED(module=str(folder), gamma=1.0) != before


def test_a_module_that_another_node_gives_is_read_when_it_runs(pack):
    node = pack.nodes["AsyncDiffModule"]
    assert node.VALIDATE_INPUTS() is True
    assert node.IS_CHANGED(sampler=None, gamma=1.0)


def test_the_sizes_that_a_configuration_names_are_those_of_the_module(folder):
    others = {"latent_channels", "prompt_channels", "pooled_channels", "bound", "actions"}
    assert set(SIZE) | others == set(json.loads((folder / "config.json").read_text()))
