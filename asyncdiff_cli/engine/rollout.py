"""One iteration's images: who draws what from which noise, and the draws of the module on the way.

Every random number is a function of the recipe's seed, the iteration and the trajectory's index in
it. So it depends on neither the number of processes nor the batch size, and a run that goes on from
a checkpoint draws what an uninterrupted one draws.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from asyncdiff_cli.engine.adapters import Guidance, TextConditions
from asyncdiff_cli.engine.adapters.reading import encode
from asyncdiff_cli.engine.backbones import Backbone
from asyncdiff_cli.engine.conditions import EncodedText
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.learned import SampledDeviation
from asyncdiff_cli.engine.policies import Policy
from asyncdiff_cli.engine.prompts import PromptSet
from asyncdiff_cli.engine.provenance import Provenance, describe
from asyncdiff_cli.engine.recipes import Recipe
from asyncdiff_cli.engine.sampler import SampleResult, sample
from asyncdiff_cli.engine.sequences import join_sequences
from asyncdiff_cli.engine.tpm import Observation, TimestepPredictionModule

NOISE, DRAWS, STEPS, EVALUATION = range(4)
"""Streams of random numbers of one seed that have nothing to do with one another."""


def generator(*key: int) -> np.random.Generator:
    """The generator of a seed, a stream and the places in it."""
    return np.random.default_rng(np.random.SeedSequence(key))


def noise_seed(*key: int) -> int:
    """A seed for torch, in [0, 2^63)."""
    return int(generator(*key).integers(2**63, dtype=np.uint64))


@dataclass(frozen=True)
class Trajectory:
    """One image of an iteration, by its index in it."""

    index: int
    group: int
    """Those of a group share their prompt and are compared with one another."""
    prompt: str
    noise: int
    """The seed of its initial noise."""


def plan_iteration(recipe: Recipe, prompts: PromptSet, iteration: int) -> list[Trajectory]:
    """All trajectories of an iteration, in which the groups take turns."""
    groups, noises = recipe.prompts_per_iteration, recipe.noises_per_prompt or recipe.group_size
    first = iteration * groups
    texts = [prompts.at(first + group, recipe.seed) for group in range(groups)]
    return [
        Trajectory(
            index=member * groups + group,
            group=group,
            prompt=texts[group],
            noise=noise_seed(recipe.seed, NOISE, iteration, group, member % noises),
        )
        for member in range(recipe.group_size)
        for group in range(groups)
    ]


def number_of_steps(recipe: Recipe, iteration: int) -> int:
    """K of an iteration: the recipe's, or one out of its range."""
    if recipe.step_range is None:
        return recipe.num_inference_steps
    low, high = recipe.step_range
    return int(generator(recipe.seed, STEPS, iteration).integers(low, high + 1))


class Stopwatch:
    """Seconds by what they were spent on. A GPU is waited for, so that its work counts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Canvas:
    """How a backbone draws in training and evaluation; None is its default."""

    backbone: Backbone
    guidance_scale: float | None = None
    size: int | None = None
    text: EncodedText | None = None
    """Prompts that are encoded already; None for a backbone with its text encoders."""

    @classmethod
    def of(cls, recipe: Recipe, backbone: Backbone) -> Canvas:
        return cls(backbone, recipe.guidance_scale, recipe.size)

    @property
    def scale(self) -> float:
        """The guidance that is drawn with."""
        own = self.guidance_scale
        return self.backbone.entry.guidance_scale if own is None else own

    @property
    def pixels(self) -> int:
        """Height and width of what is drawn."""
        return self.size or self.backbone.size

    def encode(self, prompts: Sequence[str]) -> dict[str, TextConditions]:
        """The conditions of each distinct prompt, a batch of 1.

        Each is encoded by itself: the last bits depend on how many texts there are at once, and
        an image is drawn again in another company.
        """
        texts = dict.fromkeys(prompts)
        if self.text is not None:
            device = self.backbone.device
            return {prompt: self.text.read(prompt, device) for prompt in texts}
        return {prompt: self._encode(prompt) for prompt in texts}

    @torch.no_grad()
    def _encode(self, prompt: str) -> TextConditions:
        adapter, entry = self.backbone.adapter, self.backbone.entry
        none = dict.fromkeys(field.name for field in fields(TextConditions))
        negative = None if entry.negative_prompt is None else [entry.negative_prompt]
        do_cfg = adapter.does_cfg(Guidance(self.scale, self.scale), negative is not None)
        return encode(adapter, [prompt], negative, none, do_cfg, entry.max_sequence_length)

    def draw(
        self,
        text: Sequence[TextConditions],
        seeds: Sequence[int],
        policy: Policy,
        num_inference_steps: int,
        clock: Stopwatch,
        gamma: float = 1.0,
    ) -> tuple[list[Image.Image], SampleResult]:
        """Images, each of its own conditions and noise, which is drawn on the CPU."""
        with clock("denoiser"):
            result = sample(
                self.backbone,
                policy=policy,
                gamma=gamma,
                num_inference_steps=num_inference_steps,
                guidance_scale=self.scale,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="latent",
                height=self.pixels,
                width=self.pixels,
                **joined(text),
            )
        with clock("decode"), torch.no_grad():
            side = self.pixels
            images = self.backbone.adapter.decode(result.latents, side, side, "pil")
        return images, result

    def describe(
        self,
        result: SampleResult,
        prompts: Sequence[str],
        seeds: Sequence[int],
        policy: Policy,
        num_inference_steps: int,
        gamma: float = 1.0,
    ) -> list[Provenance]:
        """The provenance of each image that `draw` returned."""
        return describe(
            self.backbone,
            result,
            prompts,
            seeds,
            policy=policy,
            gamma=gamma,
            num_inference_steps=num_inference_steps,
            guidance_scale=self.scale,
            height=self.pixels,
            width=self.pixels,
            max_sequence_length=self.backbone.entry.max_sequence_length,
        )

    def draw_if_it_fits(
        self,
        text: Sequence[TextConditions],
        seeds: Sequence[int],
        policy: Policy,
        num_inference_steps: int,
        clock: Stopwatch,
        batch_size: BatchSize,
        gamma: float = 1.0,
    ) -> tuple[list[Image.Image], SampleResult] | None:
        """As `draw`; None, and a smaller `batch_size`, if the device ran out of memory.

        Raises:
            AsyncDiffError: if not even one image fits.
        """
        try:
            return self.draw(text, seeds, policy, num_inference_steps, clock, gamma)
        except torch.OutOfMemoryError:
            pass  # the traceback holds what was allocated, until this block is over
        batch_size.halve(len(seeds))
        torch.cuda.empty_cache()
        return None


def joined(text: Sequence[TextConditions]) -> dict[str, Any]:
    """The conditions of several images as one batch, named as the arguments of `sample`."""
    columns: dict[str, Any] = dict.fromkeys(f.name for f in fields(TextConditions))
    for branch in ("", "negative_"):
        embeds, pooled, mask = (
            [getattr(each, branch + name) for each in text]
            for name in ("prompt_embeds", "pooled_prompt_embeds", "prompt_embeds_mask")
        )
        if embeds[0] is not None:
            columns[f"{branch}prompt_embeds"], columns[f"{branch}prompt_embeds_mask"] = (
                join_sequences(embeds, mask)
            )
        if pooled[0] is not None:
            columns[f"{branch}pooled_prompt_embeds"] = torch.cat(pooled)
    return columns


@dataclass
class Rollout:
    """What this process drew in an iteration: its trajectories, and how the module decided."""

    trajectories: list[Trajectory]
    images: list[Image.Image]
    seen: Observation | None
    """[S, B, …]; None for a process without a trajectory."""
    ratios: Tensor
    """r* as drawn, fp32 [S, B]."""
    deviations: Tensor
    """D, fp32 [B, S] on the CPU."""


@dataclass
class BatchSize:
    """How many images are drawn at once: halved whenever they do not fit."""

    value: int
    warnings: list[str] = field(default_factory=list)

    def halve(self, tried: int) -> None:
        """After the device ran out of memory with so many images.

        Raises:
            AsyncDiffError: if not even one image fits.
        """
        if tried == 1:
            raise AsyncDiffError(
                "out of memory with one image at a time: use a smaller size, --dtype bf16 or fp16,"
                " --quantize, --offload or offload_rewards=true"
            ) from None
        self.value = tried - tried // 2
        self.warnings.append(
            f"out of memory with {tried} images at once: going on with {self.value}"
        )


def roll_out(
    canvas: Canvas,
    tpm: TimestepPredictionModule,
    trajectories: Sequence[Trajectory],
    recipe: Recipe,
    iteration: int,
    batch_size: BatchSize,
    clock: Stopwatch,
) -> Rollout:
    """Draw trajectories with ratios sampled from the module.

    Raises:
        AsyncDiffError: for NaN or infinity in the latents, or if one image does not fit.
    """
    steps = number_of_steps(recipe, iteration)
    with clock("denoiser"):
        text = canvas.encode([t.prompt for t in trajectories]) if trajectories else {}
    images: list[Image.Image] = []
    parts: list[SampledDeviation] = []
    deviations = []
    while len(images) < len(trajectories):
        chunk = trajectories[len(images) : len(images) + batch_size.value]
        draws = [generator(recipe.seed, DRAWS, iteration, t.index) for t in chunk]
        policy = SampledDeviation(tpm, draws)
        conditions, noises = [text[t.prompt] for t in chunk], [t.noise for t in chunk]
        drawn = canvas.draw_if_it_fits(conditions, noises, policy, steps, clock, batch_size)
        if drawn is None:
            continue
        images += drawn[0]
        parts.append(policy)
        deviations.append(drawn[1].deviations)
    if not parts:
        return Rollout([], [], None, torch.zeros(steps - 1, 0), torch.zeros(0, steps - 1))
    return Rollout(
        list(trajectories),
        images,
        Observation.join([Observation.stack(part.seen) for part in parts]),
        torch.cat([torch.stack(part.ratios) for part in parts], dim=1),
        torch.cat(deviations),
    )
