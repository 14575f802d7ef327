"""A world in which everything is known, and which the project's own trainer can train in.

Data are Gaussian with independent components, one per frequency. The denoiser is their exact
velocity, a prompt names a spectrum, and a picture's reward is minus its squared error against the
exact flow from its own noise. So the error of a schedule is known by `transfer`, and the best
schedule is found by minimising that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.utils.torch_utils import randn_tensor
from scipy.optimize import minimize
from torch import Tensor, nn

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.adapters import Adapter, Denoiser, Guidance, TextConditions
from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.registry import BackboneEntry
from asyncdiff_cli.engine.backbones.schedulers import shifted_scheduler
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.policies.actions import DEVIATION, SCALING, SPACING
from asyncdiff_cli.engine.policies.spectra import Spectrum
from asyncdiff_cli.engine.policies.transfer import transfer, velocity_coefficient
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.rewards import GUARD
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.training.held_out import HeldOut
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import to_yaml
from asyncdiff_cli.engine.training.run import RunDirectory
from asyncdiff_cli.engine.training.trainer import Trainer

SIDE = 8
"""Components down and across."""
STARTS = (0.1, 0.4, 0.8)
"""Constants, of the bound, that the search for the best schedule begins at. At 0 the conditioning
times have no gradient: there they are exact."""


@dataclass(frozen=True)
class World:
    """Spectra that prompts name, and the grid that they are drawn on.

    Attributes:
        spectra: by prompt, each of SIDE·SIDE components.
        shift: of the grid.
    """

    spectra: Mapping[str, Spectrum]
    shift: float = 3.0

    @classmethod
    def of_images(cls, corners: Sequence[float], shift: float = 3.0) -> World:
        """Spectra of images whose power has fallen to half at such frequencies."""
        return cls({f"corner {c:g}": Spectrum.of_images(SIDE, c) for c in corners}, shift)

    def std(self, prompts: Sequence[str]) -> Tensor:
        """s of each component, fp32 [B, SIDE·SIDE], by rising frequency."""
        spectra = [self.spectra[prompt] for prompt in prompts]
        counts = [(spectrum.weight * SIDE**2).round().long() for spectrum in spectra]
        pairs = zip(spectra, counts, strict=True)
        return torch.stack([s.std.repeat_interleave(count) for s, count in pairs]).float()

    def grid(self, steps: int) -> Tensor:
        """The times of K steps of Euler, fp64 [K + 1]."""
        scheduler = shifted_scheduler("euler", self.shift)
        scheduler.set_timesteps(steps)
        return scheduler.sigmas.double()

    def error(
        self, deviations: Tensor, scales: Tensor | None = None, sigmas: Tensor | None = None
    ) -> Tensor:
        """The expected reward of a schedule [K − 1] of Euler's, negated; mean over the prompts.

        Args:
            scales: ω of all evaluations but the first, [K − 1]; default 1.
            sigmas: the times of the steps, [K + 1]; default the world's own.
        """
        sigmas = self.grid(len(deviations) + 1) if sigmas is None else sigmas
        told = desync.cond_sigmas(sigmas, deviations)
        if scales is not None:
            scales = torch.cat([scales.new_ones(1), scales])
        return torch.stack(
            [
                s.error(transfer(sigmas, told, s.std, velocity_scale=scales))
                for s in self.spectra.values()
            ]
        ).mean()

    def optimum(self, steps: int, bound: float = 1.0) -> Tensor:
        """The deviations within ±bound of least error, fp64 [K − 1]."""
        return least(self.error, steps - 1, bound)

    def least_error(self, steps: int, actions: Sequence[str], bound: float = 1.0) -> float:
        """The least error of static decisions of such actions that a search finds.

        D is within ±bound, ω in [0.5, 1.5], and of a grid each of all K steps at most e³ times as
        long or as short as the world's own against the others.
        """
        sizes = [steps if name == SPACING else steps - 1 for name in actions]
        still = torch.zeros(steps - 1, dtype=torch.float64)

        def error(values: Tensor) -> Tensor:
            own = dict(zip(actions, values.split(sizes), strict=True))
            sigmas = moved(self.grid(steps), 3 * own[SPACING]) if SPACING in own else None
            deviations, scales = (own.get(name, still) for name in (DEVIATION, SCALING))
            return self.error(bound * deviations, 1 + scales / 2, sigmas)

        starts = [
            np.concatenate(
                [
                    np.linspace(tilt, -tilt, n) if name == SPACING else np.full(n, first[name])
                    for name, n in zip(actions, sizes, strict=True)
                ]
            )
            for start in STARTS
            for tilt in (0.0, 0.2, -0.2)
            for first in ({DEVIATION: start, SCALING: tilt},)
        ]
        return float(error(least(error, sum(sizes), starts=starts)))

    def backbone(self) -> Backbone:
        """The exact denoiser."""
        pipe = SimpleNamespace(
            transformer=GaussianField(),
            scheduler=shifted_scheduler("euler", self.shift),
            _execution_device=torch.device("cpu"),
            maybe_free_model_hooks=lambda: None,
        )
        entry = BackboneEntry("gaussian", "gaussian", None, 5, 1.0, SIDE, 0.0, "none")
        return Backbone(pipe, entry, GaussianAdapter(pipe, self), torch.float32)

    def trainer(self, recipe: Recipe, path: Path) -> Trainer:
        """A new run in a directory, whose recipe says neither prompts nor rewards nor a model."""
        canvas, scorers = Canvas(self.backbone()), FlowError(self)
        run = RunDirectory(path, "")
        run.start(to_yaml(recipe))
        texts = tuple(self.spectra)
        own = recipe.evaluation
        held_out = [texts[n % len(texts)] for n in range(own.prompts)]
        return Trainer(
            recipe,
            canvas,
            scorers,
            PromptSet("gaussian", "train", texts),
            HeldOut.make(canvas, held_out, own.seed, recipe.num_inference_steps, scorers),
            run,
            Accelerator(cpu=True),
        )


class GaussianField(nn.Module):
    """The exact velocity of Gaussian data.

    Attributes:
        evaluations: for how many images it was evaluated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Identity()
        self.evaluations = 0

    def forward(self, latents: Tensor, timestep: Tensor, std: Tensor) -> Tensor:
        """The velocity of latents [B, 2, SIDE, SIDE] whose components have `std` [B, SIDE·SIDE].

        Their second channel stands still: it is the noise that the first one began as.
        """
        self.evaluations += len(latents)
        time = self.time(timestep)[:, None, None] / desync.TIMESTEPS
        x, noise = latents.unbind(1)
        velocity = velocity_coefficient(time, std.unflatten(1, (SIDE, SIDE))) * x
        return torch.stack([velocity, torch.zeros_like(noise)], dim=1)


class GaussianAdapter(Adapter):
    """Adapter of a world: a prompt is encoded as its spectrum, and pictures are latents."""

    family = "gaussian"
    time_embedding = "time"
    has_pooled = True
    size_multiple = 1
    latent_channels = 2

    def __init__(self, pipe: Any, world: World) -> None:
        super().__init__(pipe)
        self.world = world

    @property
    def channels(self) -> dict[str, int]:
        text = dict.fromkeys(("prompt_channels", "pooled_channels"), SIDE**2)
        return {"latent_channels": self.latent_channels, **text}

    def encode(
        self,
        prompts: list[str] | None,
        negative: Sequence[str] | None,
        given: Mapping[str, Tensor | None],
        do_cfg: bool,
        max_sequence_length: int | None,
    ) -> TextConditions:
        if prompts is None:
            return TextConditions(**given)
        std = self.world.std(prompts)
        return TextConditions(std[:, None], std)

    def latents_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        return batch, self.latent_channels, height, width

    def prepare_latents(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        generator: Sequence[torch.Generator] | torch.Generator | None,
        latents: Tensor | None,
    ) -> Tensor:
        if latents is not None:
            return latents
        batch, height, width = shape
        noise = randn_tensor((batch, 1, height, width), generator, dtype=dtype)
        return noise.repeat(1, 2, 1, 1)

    def set_timesteps(self, num_inference_steps: int, latents: Tensor) -> None:
        self.pipe.scheduler.set_timesteps(num_inference_steps)

    def denoiser(
        self, text: TextConditions, guidance: Guidance, height: int, width: int
    ) -> Denoiser:
        def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
            return self.pipe.transformer(latents, timestep.expand(len(latents)), text.pooled)

        return velocity

    def decode(
        self, latents: Tensor, height: int, width: int, output_type: str, at_once: int = 0
    ) -> Any:
        return list(latents)


class FlowError(RewardGroup):
    """The reward: minus the mean squared error against the exact flow from the picture's noise.

    It goes by the name of the guard, so that no other one is asked for.
    """

    def __init__(self, world: World) -> None:
        self.world, self.weights, self.keep = world, {GUARD: 1.0}, Path()

    def score(self, images: Sequence[Any], prompts: str | Sequence[str]) -> dict[str, Tensor]:
        x, noise = torch.stack(list(images)).flatten(2).unbind(1)
        return {GUARD: -(x - self.world.std(prompts) * noise).square().mean(1)}


def moved(sigmas: Tensor, logits: Tensor) -> Tensor:
    """The grid whose steps are e^logits times as long, [K], and then all scaled to the same ends.

    Args:
        sigmas: t_0 … t_K = 0, [K + 1].
    """
    lengths = -sigmas.diff() * logits.exp()
    lengths = lengths * (sigmas[0] / lengths.sum())
    return torch.cat([sigmas[:1], sigmas[0] - lengths.cumsum(0)[:-1], sigmas[-1:]])


def least(
    error: Callable[[Tensor], Tensor],
    decisions: int,
    bound: float = 1.0,
    starts: Sequence[np.ndarray] | None = None,
) -> Tensor:
    """Minimise an error of deviations [decisions] within ±bound on its gradients, fp64.

    Args:
        starts: where to begin, the best end of which counts; default constants.
    """

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        deviations = torch.tensor(values, requires_grad=True)
        value = error(deviations)
        value.backward()
        assert deviations.grad is not None
        return value.item(), deviations.grad.numpy()

    bounds = [(-bound, bound)] * decisions
    starts = starts or [np.full(decisions, bound * start) for start in STARTS]
    ends = [
        minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts
    ]
    return torch.from_numpy(min(ends, key=lambda end: end.fun).x)
