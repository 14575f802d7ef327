"""Pictures that a schedule is made for: prompts with noise of their own, drawn in K steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters import Guidance, TextConditions
from asyncdiff_cli.engine.drawing.canvas import Canvas, joined
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.policies.schedule_file import Schedule, schedule_of
from asyncdiff_cli.engine.sampling.loop import Velocity, denoising
from asyncdiff_cli.engine.sampling.sample import SampleResult
from asyncdiff_cli.engine.schedules.calibration import Calibration, Images
from asyncdiff_cli.engine.schedules.search import Search

OnEvaluation = Callable[[int], None]
"""Called after each evaluation of the denoiser with the number of its images."""


def ignore(count: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class PictureSet:
    """Prompts, each with noise of its own, that a canvas draws in so many steps.

    Attributes:
        seeds: of the noise, one per prompt.
        steps: K.
        batch_size: how many are drawn at once.
        on_evaluation: told of the denoiser's work.
    """

    canvas: Canvas
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    batch_size: int
    on_evaluation: OnEvaluation = ignore

    def drawn_by(self, policy: Policy, begin: int = 0) -> Iterator[SampleResult]:
        """Draw by a policy, a result of latents for each batch from the `begin`-th on."""

        def tell(state: StepState) -> None:
            self.on_evaluation(len(state.latents))

        for text, seeds in islice(self._batches(), begin, None):
            yield self.canvas.sample(text, seeds, policy, self.steps, on_step=tell)

    @torch.no_grad()
    def decoded(self, latents: Sequence[Tensor]) -> list[Image.Image]:
        """The pictures of the last latents of each batch."""
        backbone, side = self.canvas.backbone, self.canvas.pixels
        decode = backbone.adapter.decode
        return [p for x in latents for p in decode(x.to(backbone.dtype), side, side, "pil")]

    @contextmanager
    def calibration(
        self, search: Search, aims: list[Tensor] | None = None
    ) -> Iterator[Calibration]:
        """A search over all of them; the pipeline's scheduler is set to K steps.

        Args:
            search, aims: as of `Calibration`.

        Raises:
            InputError: as `Calibration`.
        """
        with self.undrawn() as (images, make):
            yield Calibration(images, make, search, aims)

    @contextmanager
    def undrawn(self) -> Iterator[tuple[list[Images], Callable[[], Any]]]:
        """Yield the velocity field and noise of each batch, and what makes a scheduler for them."""
        adapter = self.canvas.backbone.adapter
        with denoising(adapter) as field, torch.no_grad():
            images = [self._images(field, joined(text), seeds) for text, seeds in self._batches()]
            adapter.set_timesteps(self.steps, images[0].latents)
            scheduler = copy.deepcopy(adapter.pipe.scheduler)
            yield images, lambda: copy.deepcopy(scheduler)
        adapter.pipe.maybe_free_model_hooks()

    def schedule(
        self, deviations: tuple[float, ...], made: dict[str, Any], held_out: dict[str, Any]
    ) -> Schedule:
        """The file of deviations that were found on them.

        Args:
            made, held_out: as of `Schedule`.
        """
        backbone, side = self.canvas.backbone, self.canvas.pixels
        return schedule_of(
            backbone,
            backbone.pipe.scheduler.sigmas.cpu(),
            deviations,
            steps=self.steps,
            guidance_scale=self.canvas.scale,
            height=side,
            width=side,
            made=made,
            held_out=held_out,
        )

    def _batches(self) -> Iterator[tuple[list[TextConditions], tuple[int, ...]]]:
        """The conditions and seeds of those that are drawn at once."""
        for start in range(0, len(self.prompts), self.batch_size):
            some = slice(start, start + self.batch_size)
            encoded = self.canvas.encode(self.prompts[some])
            yield [encoded[prompt] for prompt in self.prompts[some]], self.seeds[some]

    def _images(
        self,
        field: Callable[[TextConditions, Guidance, int, int], Velocity],
        given: dict[str, Any],
        seeds: tuple[int, ...],
    ) -> Images:
        """The velocity field of a batch, and its noise."""
        backbone, side = self.canvas.backbone, self.canvas.pixels
        adapter, guidance = backbone.adapter, Guidance(self.canvas.scale, self.canvas.scale)
        do_cfg = adapter.does_cfg(guidance, given["negative_prompt_embeds"] is not None)
        text = adapter.encode(None, None, given, do_cfg, backbone.entry.max_sequence_length)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = len(seeds), side, side
        noise = adapter.prepare_latents(shape, text.prompt_embeds.dtype, generators, None)
        velocity = field(text, guidance, side, side)

        def told(latents: Tensor, timestep: Tensor, sigma: Tensor, cond_sigma: Tensor) -> Tensor:
            result = velocity(latents, timestep, sigma, cond_sigma)
            self.on_evaluation(len(latents))
            return result

        return Images(told, noise, adapter.token_grid(side, side))
