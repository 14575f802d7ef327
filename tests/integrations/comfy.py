"""What the nodes meet in ComfyUI: interfaces of the same names and calls, with nothing behind them.

Of a run there: a sampler's `sample` scales the noise and calls its function with a model that lays
the mask over the guider, whose calls end in `apply_model`, by `model_function_wrapper` if there is
one. Imports torch alone, so that it can stand in for ComfyUI in any process.
"""

from __future__ import annotations

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

MODULES = ("learned", "module", "sampler", "schedules")


def expanded(sigma, x):
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


class CONST:
    """Flow matching."""

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_input - expanded(sigma, model_input) * model_output

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return sigma * noise + (1 - sigma) * latent_image


class EPS:
    """Noise prediction, as SDXL has it."""

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_input - expanded(sigma, model_input) * model_output


class ImageToImage(CONST):
    """A model that gives the image itself, at whatever σ."""

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_output


class ModelSamplingDiscreteFlow:
    """Where a flow model's grid comes from."""


class Flow(ModelSamplingDiscreteFlow, CONST):
    """Of both kinds, as ComfyUI makes a class for each model."""


class Model:
    """`BaseModel` of a velocity (x, t [n], condition). Keeps the times that it is told."""

    def __init__(self, velocity, sampling=Flow):
        self.velocity, self.model_sampling, self.times = velocity, sampling(), []

    def apply_model(self, x, t, condition=None):
        self.times.append(t)
        return self.model_sampling.calculate_denoised(t, self.velocity(x, t, condition), x)


class SD3(Model):
    """A model whose prompts have a sequence and a pooled embedding."""


class Flux(SD3):
    """Another one."""


class Guider:
    """`CFGGuider`: conditions, negative and positive, or one; and what a prompt has become."""

    def __init__(self, model, conditions=(None,), cfg=1.0, text=None):
        self.inner_model, self.conditions, self.cfg = model, conditions, cfg
        self.model_options = {}
        if text is not None:
            names = zip(("c_crossattn", "y"), text, strict=True)
            held = {name: SimpleNamespace(cond=value) for name, value in names}
            self.conds = {"positive": [{"model_conds": held}]}

    def __call__(self, x, timestep, model_options, seed):
        answers = [self.ask(x, timestep, c, model_options) for c in self.conditions]
        return answers[0] + self.cfg * (answers[-1] - answers[0])

    def ask(self, x, timestep, condition, model_options):
        apply_model, c = self.inner_model.apply_model, {"condition": condition}
        if "model_function_wrapper" not in model_options:
            return apply_model(x, timestep, **c)
        args = {"input": x, "timestep": timestep, "c": c, "cond_or_uncond": [0]}
        return model_options["model_function_wrapper"](apply_model, args)


class Masked:
    """`KSamplerX0Inpaint`: where the mask is 0 the latent stays what it was."""

    def __init__(self, guider, noise, latent):
        self.inner_model, self.noise, self.latent = guider, noise, latent

    def __call__(self, x, sigma, denoise_mask, model_options, seed):
        if denoise_mask is None:
            return self.inner_model(x, sigma, model_options, seed)
        scaling = self.inner_model.inner_model.model_sampling.noise_scaling
        kept = scaling(expanded(sigma, x), self.noise, self.latent)
        x = torch.where(denoise_mask > 0, x, kept)
        denoised = self.inner_model(x, sigma, model_options, seed)
        return torch.where(denoise_mask > 0, denoised, self.latent)


class KSAMPLER:
    def __init__(self, sampler_function, extra_options={}, inpaint_options={}):  # noqa: B006
        self.sampler_function = sampler_function
        self.extra_options, self.inpaint_options = extra_options, inpaint_options

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask=None
    ):
        model = Masked(model_wrap, noise, latent_image)
        sampling = model_wrap.inner_model.model_sampling
        x = sampling.noise_scaling(sigmas[0], noise, latent_image)
        extra_args["denoise_mask"] = denoise_mask
        options = {"callback": callback, "disable": True, **self.extra_options}
        return self.sampler_function(model, x, sigmas, extra_args=extra_args, **options)


def sample_euler(model, x, sigmas, extra_args=None, callback=None, disable=None, s_noise=1.0):
    for sigma, sigma_next in pairwise(sigmas):
        denoised = model(x, sigma.expand(len(x)), **extra_args)
        x = x + (sigma_next - sigma) * (x - denoised) / sigma
    return x


def sample_heun(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for sigma, sigma_next in pairwise(sigmas):
        d = (x - model(x, sigma.expand(len(x)), **extra_args)) / sigma
        ahead = x + (sigma_next - sigma) * d
        if sigma_next > 0:
            denoised = model(ahead, sigma_next.expand(len(x)), **extra_args)
            d = (d + (ahead - denoised) / sigma_next) / 2
        x = x + (sigma_next - sigma) * d
    return x


def sample_midpoint(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Evaluates at the grid's times and half way to the next."""
    for sigma, sigma_next in pairwise(sigmas):
        middle = (sigma + sigma_next) / 2
        d = (x - model(x, sigma.expand(len(x)), **extra_args)) / sigma
        half = x + (middle - sigma) * d
        d = (half - model(half, middle.expand(len(x)), **extra_args)) / middle
        x = x + (sigma_next - sigma) * d
    return x


def draw(sampler, guider, sigmas, noise, latent=None, mask=None):
    """What SamplerCustomAdvanced does: from noise [B, …] to latents."""
    latent = torch.zeros_like(noise) if latent is None else latent
    extra_args = {"model_options": dict(guider.model_options), "seed": 0}
    return sampler.sample(guider, sigmas, extra_args, None, noise, latent, mask)


def load_torch_file(path, safe_load=False):
    from safetensors.torch import load_file  # the one thing here that is not torch's

    return load_file(path)


def install():
    """Put the modules where the nodes import them from."""
    for name, members in {
        "comfy": {},
        "comfy.samplers": {"KSAMPLER": KSAMPLER},
        "comfy.model_sampling": {"CONST": CONST},
        "comfy.model_base": {"SD3": SD3, "Flux": Flux},
        "comfy.utils": {"load_torch_file": load_torch_file},
    }.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(members)


def load(folder: Path):
    """Load a folder of `custom_nodes` as ComfyUI does: by its path, under a name made of it."""
    name = str(folder)
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    sys.modules[name] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    modules = {n: sys.modules[f"{name}.{n}"] for n in MODULES}
    return SimpleNamespace(nodes=pack.NODE_CLASS_MAPPINGS, pack=pack, **modules)
