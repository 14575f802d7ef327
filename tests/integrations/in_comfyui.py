"""Run the nodes in ComfyUI itself, by its own nodes and samplers, around a velocity that is known.

    python tests/integrations/in_comfyui.py COMFYUI NODES MODULE

COMFYUI is its folder, NODES that of the nodes, MODULE that of a module for 4, 8 and 6 channels.
Needs what ComfyUI needs; runs on the CPU.
"""

import asyncio
import sys
from pathlib import Path

COMFYUI, NODES, MODULE = map(Path, sys.argv[1:])
sys.path[0], sys.argv[1:] = str(COMFYUI), ["--cpu"]

import comfy.options  # noqa: E402  before anything else, so that it reads the arguments

comfy.options.enable_args_parsing()

import nodes  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from comfy import latent_formats, samplers, supported_models  # noqa: E402
from comfy.model_base import SD3, BaseModel, ModelType  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402

CPU, STEPS, GUIDANCE = torch.device("cpu"), 6, 4.0
STD = torch.linspace(0.02, 3, 4 * 8 * 8).reshape(4, 8, 8)
DEVIATIONS = (0.8, -1.0, 0.5, 1.0, 0.0)


def velocity(x, time, side):
    """That of Gaussian data, moved by a condition's side, 1 or −1."""
    return (time - (1 - time) * STD**2) / ((1 - time) ** 2 * STD**2 + time**2) * x + side * time / 8


class Network(torch.nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.dtype, self.weight = torch.float32, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, timestep, context=None, **others):
        time, side = timestep / 1000, context.mean(dim=(1, 2))
        return velocity(x, time.reshape(-1, 1, 1, 1), side.reshape(-1, 1, 1, 1))


class Known(SD3):
    """A model that a module can be run for, around the network here."""

    def __init__(self, *settings):
        BaseModel.__init__(self, *settings)


def model(kind=ModelType.FLOW, made=BaseModel):
    config = supported_models.SD3({"in_channels": 4})
    config.latent_format = latent_formats.LatentFormat()
    config.sampling_settings = {"shift": 3.0}
    config.set_inference_dtype(torch.float32, None)
    return ModelPatcher(made(config, kind, CPU, Network).eval(), CPU, CPU)


def draw(sampler, patcher, mask=None):
    """The latents, as SamplerCustomAdvanced has them, the grid and the noise."""
    guider = samplers.CFGGuider(patcher)
    side, pooled = torch.ones(1, 3, 8), {"pooled_output": torch.ones(1, 6)}
    guider.set_conds([[side, pooled]], [[-side, pooled]])
    guider.set_cfg(GUIDANCE)
    sampling = patcher.get_model_object("model_sampling")
    sigmas = samplers.calculate_sigmas(sampling, "simple", STEPS)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latent = torch.full_like(noise, 0.5 if mask is not None else 0.0)
    drawn = guider.sample(noise, latent, sampler, sigmas, mask, disable_pbar=True, seed=0)
    return drawn, sigmas, noise


def by_hand(sigmas, noise):
    """Euler in fp64 with guidance, told the times of Eq. 6."""
    sigmas, side = sigmas.double(), 2 * GUIDANCE - 1
    x, told = sigmas[0] * noise.double(), sigmas[0]
    for k in range(STEPS):
        x = x + (sigmas[k + 1] - sigmas[k]) * velocity(x, told, side)
        if k < len(DEVIATIONS):
            told = sigmas[k] + (1 + DEVIATIONS[k]) * (sigmas[k + 1] - sigmas[k])
            told = told.clamp(1e-3, sigmas[0])
    return x.float()


def run_module():
    """By the samplers that ask once a step; the others say that they do not."""
    node, known = nodes.NODE_CLASS_MAPPINGS["AsyncDiffModule"], model(made=Known)

    def wrapped(name, gamma=1.0):
        return node().wrap(samplers.sampler_object(name), str(MODULE), gamma)[0]

    once = "euler", "dpmpp_2m", "res_multistep", "uni_pc", "lcm", "ddim"
    for name in once:
        stock = draw(samplers.sampler_object(name), known)[0]
        assert torch.equal(draw(wrapped(name, 0.0), known)[0], stock), name
        assert not torch.allclose(draw(wrapped(name), known)[0], stock, atol=0.01), name
    for name in ("heun", "dpm_2", "dpmpp_sde"):
        with pytest.raises(RuntimeError, match="A module chooses once a step"):
            draw(wrapped(name), known)
    with pytest.raises(ValueError, match="this model is BaseModel"):
        draw(wrapped("euler"), model())


def main():
    assert asyncio.run(nodes.load_custom_node(str(NODES)))
    node = nodes.NODE_CLASS_MAPPINGS["AsyncDiffSchedule"]

    def wrapped(name, schedule="0.5", gamma=1.0):
        return node().wrap(samplers.sampler_object(name), schedule, gamma)[0]

    flow = model()
    drawn, sigmas, noise = draw(wrapped("euler", ", ".join(map(str, DEVIATIONS))), flow)
    torch.testing.assert_close(drawn, by_hand(sigmas, noise), rtol=1e-5, atol=1e-5)
    for name in samplers.SAMPLER_NAMES:
        stock, drawn = draw(samplers.sampler_object(name), flow)[0], draw(wrapped(name), flow)[0]
        assert torch.equal(draw(wrapped(name, gamma=0.0), flow)[0], stock), name
        assert drawn.isfinite().all(), name
        assert not torch.allclose(drawn, stock, atol=0.1), name
    mask = (torch.arange(8) < 4).float().expand(1, 1, 8, 8)
    kept = draw(wrapped("euler", "1"), flow, mask)[0][..., 4:]
    torch.testing.assert_close(kept, torch.full_like(kept, 0.5))
    with pytest.raises(ValueError, match="only flow models"):
        draw(wrapped("euler"), model(ModelType.EPS))
    run_module()


main()
