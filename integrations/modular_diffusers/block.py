"""Asynchronous timestep conditioning as a block of Modular Diffusers.

A modular pipeline hands the denoiser the times in `timesteps` and moves its latents along the
scheduler's `sigmas`. The block stands before the loop and puts other times into `timesteps`; the
latents' own schedule stays as it is. It needs nothing but torch and diffusers.
"""

import copy
import math

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.modular_pipelines import (
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
)
from diffusers.modular_pipelines.modular_pipeline_utils import (
    ComponentSpec,
    InputParam,
    OutputParam,
)

NAME = "async_timesteps"
SIGMA_MIN = 1e-3
"""The cleanest time that is told (Algorithm 2, line 10)."""


class AsyncTimesteps(ModularPipelineBlocks):
    """Tell the denoiser t* = t_k + γ·D·(t_k - t_{k-1}) in place of t_k (AsyncDiff, Eq. 6 and 12).

    The first evaluation keeps its time (Algorithm 2, line 2).
    """

    @property
    def description(self) -> str:
        return "Step that tells the denoiser later (cleaner) or earlier times than the latents have"

    @property
    def expected_components(self) -> list[ComponentSpec]:
        return [ComponentSpec("scheduler", FlowMatchEulerDiscreteScheduler)]

    @property
    def inputs(self) -> list[InputParam]:
        return [
            InputParam("timesteps", required=True, type_hint=torch.Tensor),
            InputParam(
                "deviations",
                default=0.0,
                description="D in [-1, 1], in intervals of the grid: one number, or one for each"
                " evaluation but the first. 0 is the stock pipeline, 1 a whole step cleaner.",
            ),
            InputParam("gamma", default=1.0, description="What the deviations are multiplied by."),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [OutputParam("timesteps", type_hint=torch.Tensor)]

    @torch.no_grad()
    def __call__(self, components, state):
        block = self.get_block_state(state)
        scheduler, count = components.scheduler, len(block.timesteps)
        if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            raise ValueError(
                f"AsyncTimesteps needs a FlowMatchEulerDiscreteScheduler, not a"
                f" {type(scheduler).__name__}: others look a time up, or fit several"
            )
        begin = len(scheduler.timesteps) - count  # image to image begins late
        sigmas = scheduler.sigmas[begin:].to(block.timesteps.device, torch.float32)
        told = asynchronous(sigmas, block.deviations, block.gamma)
        on_grid = told == sigmas[:-1]
        trained = scheduler.config.num_train_timesteps
        block.timesteps = torch.where(
            on_grid, block.timesteps, (trained * told).to(block.timesteps)
        )
        if scheduler.begin_index is None:  # else `step` would look for the told time
            scheduler.set_begin_index(begin)
        self.set_block_state(state, block)
        return components, state


def asynchronous(sigmas, deviations, gamma):
    """Compute t* of each evaluation.

    Args:
        sigmas: t_0 > ... > t_K, fp32 [K + 1].
        deviations: D of the evaluations 1 ... K - 1, or one number for all of them.
        gamma: a finite number.

    Returns:
        fp32 [K], the first of them t_0, and the grid's own where gamma·D is 0.

    Raises:
        ValueError: for what is no number, another number of deviations, or one outside [-1, 1].
    """
    own, gamma = _numbers("deviations", deviations).to(sigmas), float(_numbers("gamma", gamma))
    decisions = len(sigmas) - 2
    if own.ndim > 1 or (own.ndim == 1 and len(own) != decisions):
        raise ValueError(
            f"{own.numel()} deviations for a run of {decisions + 1} evaluations: give {decisions},"
            " or one number for all"
        )
    if not ((own.abs() <= 1).all() and math.isfinite(gamma)):
        raise ValueError(
            f"deviations are in [-1, 1] and gamma is finite, not {deviations}, {gamma}"
        )
    intervals = sigmas[1:-1] - sigmas[:-2]  # negative: towards the image
    told = sigmas[1:-1] + gamma * own * intervals
    told = told.clamp(min=SIGMA_MIN).minimum(sigmas[0])
    return torch.cat([sigmas[:1], torch.where(gamma * own == 0, sigmas[1:-1], told)])


def _numbers(name, given):
    try:
        return torch.as_tensor(given, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}: {given!r} is no number") from None


def make_asynchronous(blocks):
    """Put the block before every denoising loop of a modular pipeline's blocks.

    Args:
        blocks: such as `FluxAutoBlocks()`. They stay as they are: diffusers' classes share some of
            their blocks with one another.

    Returns:
        A copy with the block in it.

    Raises:
        ValueError: if they have no denoising loop, or the block already.
    """
    blocks = copy.deepcopy(blocks)
    if not _insert(blocks):
        raise ValueError(f"{type(blocks).__name__} has no denoising loop to stand before")
    return blocks


def _insert(blocks):
    """Whether there was a loop."""
    found = False
    for name, block in [*getattr(blocks, "sub_blocks", {}).items()]:
        if isinstance(block, AsyncTimesteps):
            raise ValueError("these blocks are asynchronous already")
        if isinstance(block, LoopSequentialPipelineBlocks):
            index = [*blocks.sub_blocks].index(name)
            blocks.sub_blocks.insert(NAME, AsyncTimesteps(), index)
            found = True
        else:
            found |= _insert(block)
    return found
