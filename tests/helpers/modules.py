"""Small timestep prediction modules, and what they are asked."""

import torch

from asyncdiff_cli.engine import TimestepPredictionModule
from asyncdiff_cli.engine.policies.observation import Observation
from tests.conftest import Case

CHANNELS = {"latent_channels": 4, "prompt_channels": 8, "pooled_channels": 6}
SIZE = {"width": 16, "heads": 4, "layers": 2, "patch_size": 2, "text_tokens": 2, "global_tokens": 2}


def tiny(**options) -> TimestepPredictionModule:
    torch.manual_seed(0)
    return TimestepPredictionModule(**{**CHANNELS, **SIZE, **options})


def randomised(tpm: TimestepPredictionModule) -> TimestepPredictionModule:
    """As if trained: no weight is zero any more, and the answers differ from image to image."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in tpm.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return tpm


def seen(batch=2, decisions=1, size=(4, 6), tokens=3, steps=10, dtype=torch.float32) -> Observation:
    """Decisions about random images, at random times."""
    g = torch.Generator().manual_seed(2)
    latents, velocity = torch.randn(2, decisions, batch, 4, *size, generator=g).to(dtype)
    sigma, sigma_next, cond_sigma = torch.rand(3, decisions, batch, generator=g)
    return Observation(
        latents=latents,
        velocity=velocity,
        sigma=sigma,
        sigma_next=sigma_next,
        cond_sigma=cond_sigma,
        progress=(torch.arange(decisions) / steps)[:, None].expand(-1, batch),
        prompt_embeds=torch.randn(batch, tokens, 8, generator=g).to(dtype),
        pooled_prompt_embeds=torch.randn(batch, 6, generator=g).to(dtype),
    )


def answers(tpm: TimestepPredictionModule, observation: Observation) -> torch.Tensor:
    """α − 1 and β − 1 in one tensor, [2, S, B]."""
    return torch.stack(tpm(observation))


def tpm_for(case: Case, bound: float = 0.5, actions=("deviation",)) -> TimestepPredictionModule:
    torch.manual_seed(0)
    return TimestepPredictionModule(
        **case.backbone.adapter.channels, bound=bound, actions=actions, **SIZE
    )


def save_module(directory, seed=1, prompt_channels=32, bound=0.5):
    """A module for the tiny SD3 pipeline, moved away from the synchronous sampler."""
    torch.manual_seed(seed)
    tpm = TimestepPredictionModule(
        16, prompt_channels, 32, bound=bound, width=32, layers=1, heads=2, patch_size=4
    )
    with torch.no_grad():
        for parameter in tpm.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    tpm.save_pretrained(directory)
    return directory
