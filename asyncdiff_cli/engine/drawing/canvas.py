"""How a backbone draws in training and evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters import Guidance, TextConditions
from asyncdiff_cli.engine.backbones.adapters.encoding import encode
from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.sequences import join_sequences
from asyncdiff_cli.engine.drawing.encoded_text import EncodedText
from asyncdiff_cli.engine.drawing.provenance import Drawn, Provenance, describe
from asyncdiff_cli.engine.drawing.settings import BatchSettings
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.sampling.sample import SampleResult, sample

OnStep = Callable[[StepState], None]
"""What is called after each evaluation with its state."""


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
    share_first: int = True
    """How many first evaluations images of equal latents, times and conditions share: one, for
    trajectories of a group and the policies of an evaluation, and more for those of one prefix."""

    @property
    def scale(self) -> float:
        """The guidance that is drawn with."""
        usual = self.backbone.entry.guidance_scale
        return usual if self.guidance_scale is None else self.guidance_scale

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

    def sample(
        self,
        text: Sequence[TextConditions],
        seeds: Sequence[int],
        policy: Policy,
        num_inference_steps: int,
        gamma: float = 1.0,
        on_step: OnStep | None = None,
    ) -> SampleResult:
        """The latents of images, each of its own conditions and noise, which is drawn on the CPU.

        Args:
            on_step: called after each evaluation with its state.
        """
        return sample(
            self.backbone,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
            on_step=on_step,
            **self._settings(policy, num_inference_steps, gamma).arguments,
            **joined(text),
        )

    def _settings(self, policy: Policy, num_inference_steps: int, gamma: float) -> BatchSettings:
        return BatchSettings(
            policy,
            gamma,
            num_inference_steps,
            self.scale,
            height=self.pixels,
            width=self.pixels,
            negative_prompt=None,
            max_sequence_length=self.backbone.entry.max_sequence_length,
            share_first=self.share_first,
        )

    def draw(
        self,
        text: Sequence[TextConditions],
        seeds: Sequence[int],
        policy: Policy,
        num_inference_steps: int,
        clock: Stopwatch,
        gamma: float = 1.0,
        on_step: OnStep | None = None,
    ) -> tuple[list[Image.Image], SampleResult]:
        """Images, each of its own conditions and noise, which is drawn on the CPU."""
        with clock("denoiser"):
            result = self.sample(text, seeds, policy, num_inference_steps, gamma, on_step)
        with clock("decode"):
            images = self.decode(result.latents)
        return images, result

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """The images of latents as `SampleResult` has them."""
        return self.backbone.adapter.decode(latents, self.pixels, self.pixels, "pil")

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
        drawn = [Drawn(prompt=p, seed=s) for p, s in zip(prompts, seeds, strict=True)]
        settings = self._settings(policy, num_inference_steps, gamma)
        return describe(self.backbone, result, drawn, settings)

    def draw_if_it_fits(
        self,
        text: Sequence[TextConditions],
        seeds: Sequence[int],
        policy: Policy,
        num_inference_steps: int,
        clock: Stopwatch,
        batch_size: BatchSize,
        gamma: float = 1.0,
        on_step: OnStep | None = None,
    ) -> tuple[list[Image.Image], SampleResult] | None:
        """Draw as `draw` does; None, and a smaller `batch_size`, if the device ran out of memory.

        Raises:
            AsyncDiffError: if not even one image fits.
        """
        try:
            return self.draw(text, seeds, policy, num_inference_steps, clock, gamma, on_step)
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
            [getattr(conditions, branch + name) for conditions in text]
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
class BatchSize:
    """How many images are drawn at once: halved whenever they do not fit."""

    value: int
    warnings: list[str] = field(default_factory=list)

    def halve(self, tried: int) -> None:
        """Halve the batch, after the device ran out of memory with so many images.

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
