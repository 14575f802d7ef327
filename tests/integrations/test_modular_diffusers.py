"""The block of Modular Diffusers: what it draws is what `attach` draws in the stock pipeline."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import (
    FluxAutoBlocks,
    ModularPipelineBlocks,
    StableDiffusion3AutoBlocks,
)
from PIL import Image

from asyncdiff_cli.engine import FixedDeviation, ScheduledDeviation, attach
from tests.conftest import quiet, tiny_flux, tiny_sd3

FOLDER = Path(__file__).parents[2] / "integrations" / "modular_diffusers"
MAKE = {"flux": (tiny_flux, FluxAutoBlocks), "sd3": (tiny_sd3, StableDiffusion3AutoBlocks)}
SETTINGS = {"num_inference_steps": 4, "height": 16, "width": 16, "output_type": "pt"}
DEVIATIONS = [0.9, -0.4, 0.2]


@pytest.fixture(scope="module")
def block():
    """The module, as one has it who copies the file beside a script."""
    spec = spec_from_file_location("block", FOLDER / "block.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=MAKE)
def pair(request, block):
    """A stock pipeline, and a modular one of the same components with the block in it."""
    make, blocks = MAKE[request.param]
    stock = quiet(make())
    pipe = block.make_asynchronous(blocks()).init_pipeline()
    names = [name for name in pipe.component_names if getattr(stock, name, None) is not None]
    pipe.update_components(**{name: getattr(stock, name) for name in names})
    pipe.set_progress_bar_config(disable=True)
    if request.param == "sd3":
        pipe.update_components(guider=ClassifierFreeGuidance(guidance_scale=3.5))
    return stock, pipe


def drawn(pipe, **options):
    generator = torch.Generator().manual_seed(3)
    flux = "Flux" in type(pipe).__name__
    options |= {"guidance_scale": 3.5} if flux else {"negative_prompt": ""}
    out = pipe(prompt="a cat", generator=generator, output="images", **SETTINGS, **options)
    return torch.as_tensor(out)


def by_attach(stock, policy, gamma=1.0):
    generator = torch.Generator().manual_seed(3)
    with attach(stock, policy, gamma):
        return stock("a cat", generator=generator, guidance_scale=3.5, **SETTINGS).images


def test_it_is_attach_in_a_modular_pipeline(pair):
    stock, pipe = pair
    plain = by_attach(stock, FixedDeviation(0))
    # FLUX computes the same on the same shapes; SD3's guider calls its branches one by one
    atol = 0 if "Flux" in type(stock).__name__ else 1e-4
    torch.testing.assert_close(drawn(pipe), plain, rtol=0, atol=atol)
    for given, policy in ((0.5, FixedDeviation(0.5)), (DEVIATIONS, ScheduledDeviation(DEVIATIONS))):
        expected = by_attach(stock, policy, gamma=0.8)
        assert (expected - plain).abs().max() > 1e-3
        found = drawn(pipe, deviations=given, gamma=0.8)
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_gamma_zero_is_the_same_pipeline_without_it(pair):
    _, pipe = pair
    assert torch.equal(drawn(pipe, deviations=0.5, gamma=0.0), drawn(pipe))


def test_image_to_image_begins_late(block):
    stock = quiet(tiny_flux())
    pipe = block.make_asynchronous(FluxAutoBlocks()).init_pipeline()
    names = [name for name in pipe.component_names if getattr(stock, name, None) is not None]
    pipe.update_components(**{name: getattr(stock, name) for name in names})
    pipe.set_progress_bar_config(disable=True)
    image = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    options = {"image": image, "strength": 0.5}  # of four steps the last two
    before = drawn(pipe, **options)
    assert not torch.equal(drawn(pipe, deviations=[0.5], **options), before)
    assert torch.equal(drawn(pipe, deviations=[0.0], **options), before)
    with pytest.raises(ValueError, match="3 deviations for a run of 2 evaluations: give 1"):
        drawn(pipe, deviations=DEVIATIONS, **options)


@pytest.mark.parametrize(
    ("deviations", "gamma", "message"),
    [
        ([0.1], 1.0, "1 deviations for a run of 4 evaluations: give 3"),
        (1.5, 1.0, r"in \[-1, 1\]"),
        (float("nan"), 1.0, r"in \[-1, 1\]"),
        (0.5, float("inf"), "gamma is finite"),
        ("half", 1.0, "deviations: 'half' is no number"),
        (0.5, None, "gamma: None is no number"),
    ],
)
def test_what_cannot_be_is_refused(block, deviations, gamma, message):
    with pytest.raises(ValueError, match=message):
        block.asynchronous(torch.linspace(1, 0, 5), deviations, gamma)


def test_it_is_put_in_once_and_into_a_copy(block):
    untouched = block.make_asynchronous(FluxAutoBlocks())
    assert "AsyncTimesteps" not in str(FluxAutoBlocks())
    with pytest.raises(ValueError, match="asynchronous already"):
        block.make_asynchronous(untouched)


def test_blocks_without_a_loop_are_refused(block):
    with pytest.raises(ValueError, match="AsyncTimesteps has no denoising loop"):
        block.make_asynchronous(block.AsyncTimesteps())


def test_diffusers_loads_it_from_its_folder():
    loaded = ModularPipelineBlocks.from_pretrained(str(FOLDER), trust_remote_code=True)
    assert [each.name for each in loaded.inputs] == ["timesteps", "deviations", "gamma"]
