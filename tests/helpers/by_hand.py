"""Euler with asynchronous conditioning on the models' own calls; in no way this project's.

Here t* goes in by the model's argument, where the project hands it to the module that embeds it.
"""

import math
from collections.abc import Callable

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from tests.conftest import PROMPTS, Case, seeded

STEPS = 4
Field = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Latents and t* [B] to the guided velocity."""


def by_hand(case: Case, deviations: list[float], gamma: float) -> torch.Tensor:
    """The last latents."""
    family = case.backbone.adapter.family
    x, sigma, field = FAMILIES[family](case)
    times = torch.full((2,), sigma[0])
    for k in range(STEPS):
        v = field(x, times)
        x = x + (sigma[k + 1] - sigma[k]) * v
        times = torch.tensor(
            [
                min(max(sigma[k] + (1 + gamma * d) * (sigma[k + 1] - sigma[k]), 1e-3), sigma[0])
                for d in deviations
            ]
        )
    return x


def noise(case: Case, channels: int, patches: bool = False) -> torch.Tensor:
    """[2, C, H, W], or as FLUX.2 draws it, [2, 4C, H/2, W/2]."""
    side = case.backbone.size if "height" not in case.ours else 0
    height, width = case.ours.get("height", side), case.ours.get("width", side)
    factor = case.pipe.vae_scale_factor * (2 if patches else 1)
    shape = (1, channels, height // factor, width // factor)
    return torch.cat([torch.randn(shape, generator=g) for g in seeded(2)])


def places(x: torch.Tensor) -> torch.Tensor:
    """[2, C, H, W] as tokens of 2×2, [2, HW/4, 4C]."""
    return torch.nn.functional.pixel_unshuffle(x, 2).flatten(2).mT


def shifted(sigma: torch.Tensor, mu: float) -> torch.Tensor:
    return math.exp(mu) / (math.exp(mu) + (1 / sigma - 1))


def ended(sigma: torch.Tensor) -> list[float]:
    return [*map(float, sigma), 0.0]


def even() -> torch.Tensor:
    return torch.linspace(1, 1 / STEPS, STEPS)


def sd3(case: Case) -> tuple[torch.Tensor, list[float], Field]:
    pipe, guidance = case.pipe, case.ours["guidance_scale"]
    pipe.scheduler.set_timesteps(STEPS)
    embeds, no_embeds, pooled, no_pooled = case.encode()

    def model(x, times, embeds, pooled):
        return pipe.transformer(x, embeds, pooled, 1000 * times).sample

    def field(x, times):
        v = model(x, times, embeds, pooled)
        if guidance <= 1:
            return v
        v_no = model(x, times, no_embeds, no_pooled)
        return v_no + guidance * (v - v_no)

    x = noise(case, pipe.transformer.config.in_channels)
    return x, ended(pipe.scheduler.sigmas[:-1]), field


def flux(case: Case) -> tuple[torch.Tensor, list[float], Field]:
    pipe, strength = case.pipe, case.ours.get("true_cfg_scale", 1.0)
    x = noise(case, 4)
    image_ids = pipe._prepare_latent_image_ids(2, x.shape[2] // 2, x.shape[3] // 2, "cpu", x.dtype)
    x = places(x)
    embeds, pooled, text_ids = case.encode()
    no_embeds, no_pooled, _ = case.encode(["a dog"] * 2)
    ids = {"txt_ids": text_ids, "img_ids": image_ids}
    scale = torch.full((2,), float(case.ours["guidance_scale"]))

    def model(x, times, embeds, pooled):
        return pipe.transformer(x, embeds, pooled, times, guidance=scale, **ids).sample

    def field(x, times):
        v = model(x, times, embeds, pooled)
        if strength <= 1:
            return v
        v_no = model(x, times, no_embeds, no_pooled)
        return v_no + strength * (v - v_no)

    return x, ended(shifted(even(), calculate_shift(x.shape[1]))), field


def flux2(case: Case) -> tuple[torch.Tensor, list[float], Field]:
    pipe, guidance = case.pipe, case.ours["guidance_scale"]
    embedded = pipe.transformer.config.guidance_embeds
    x = noise(case, 16, patches=True)
    rows, columns = x.shape[2:]
    x = x.flatten(2).mT

    def ids(*axes):
        return torch.cartesian_prod(*map(torch.arange, axes))

    def model(x, times, prompts):
        embeds, _ = pipe.encode_prompt(prompts, max_sequence_length=36)
        return pipe.transformer(
            x,
            embeds,
            times,
            ids(1, rows, columns, 1),
            ids(1, 1, 1, 36),
            torch.full((2,), guidance) if embedded else None,
        ).sample

    def field(x, times):
        v = model(x, times, PROMPTS)
        if embedded:
            return v
        v_no = model(x, times, ["", ""])
        return v_no + guidance * (v - v_no)

    # of 24 tokens: the published line through the values for 10 and for 200 steps
    at_10, at_200 = 8.73809524e-05 * len(x[0]) + 1.89833333, 0.00016927 * len(x[0]) + 0.45666666
    mu = at_10 + (at_200 - at_10) / 190 * (STEPS - 10)
    return x, ended(shifted(even(), mu)), field


def qwen_image(case: Case) -> tuple[torch.Tensor, list[float], Field]:
    """With the prompts one by one, so that there is no padding and no mask."""
    pipe, strength = case.pipe, case.ours["true_cfg_scale"]
    x = noise(case, 4)
    shapes = [[(1, x.shape[2] // 2, x.shape[3] // 2)]]
    x = places(x)

    def model(x, times, prompts):
        each = [
            pipe.transformer(x[[i]], pipe.encode_prompt(p)[0], None, times[[i]], shapes).sample
            for i, p in enumerate(prompts)
        ]
        return torch.cat(each)

    def field(x, times):
        v, v_no = model(x, times, PROMPTS), model(x, times, ["a dog"] * 2)
        guided = v_no + strength * (v - v_no)
        return guided * v.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True)

    slope = (0.9 - 0.5) / (8192 - 256)
    sigma = shifted(even(), 0.5 + slope * (len(x[0]) - 256))
    sigma = 1 - (1 - sigma) * (1 - 0.02) / (1 - sigma[-1])  # so that it ends at 0.02
    return x, ended(sigma), field


def z_image(case: Case) -> tuple[torch.Tensor, list[float], Field]:
    """With the prompts one by one, and without guidance but for the formula."""
    pipe, guidance = case.pipe, case.ours["guidance_scale"]

    def model(x, times, prompts):
        each = [
            pipe.transformer(
                [x[i][:, None]], 1 - times[[i]], pipe.encode_prompt(p, None, False)[0]
            ).sample[0]
            for i, p in enumerate(prompts)
        ]
        return -torch.stack(each)[:, :, 0]

    def field(x, times):
        v, v_no = model(x, times, PROMPTS), model(x, times, ["", ""])
        return v + guidance * (v - v_no)

    sigma = even()
    return noise(case, 4), ended(3 * sigma / (1 + 2 * sigma)), field


FAMILIES = {
    "sd3": sd3,
    "flux": flux,
    "flux2": flux2,
    "flux2-klein": flux2,
    "qwen-image": qwen_image,
    "z-image": z_image,
}
