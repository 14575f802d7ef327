"""Stage ``evaluate``: measure the exported pipeline, beside real scenes of the same kind.

The judge was trained with another seed on other scenes than what conditions mini. Everything is
drawn through asyncdiff's own sampler, so that deviations are its own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from asyncdiff_cli.engine import Backbone, FixedDeviation, load_backbone, sample
from asyncdiff_cli.engine.evaluation.set_metrics.fid_judge import FIDJudge
from asyncdiff_cli.engine.evaluation.set_metrics.spectrum import RadialSpectrum, spectra
from asyncdiff_cli.engine.rewards.mini_judge import MiniJudge
from asyncdiff_cli.engine.rewards.noise import noise_level
from asyncdiff_cli.engine.rewards.world.answers import is_right, mean_probability
from asyncdiff_cli.engine.rewards.world.grammar import SceneRequest, say
from asyncdiff_cli.engine.rewards.world.judge import Found, JudgeNet, look
from asyncdiff_cli.engine.rewards.world.questions import NEEDS, Question, make_questions
from mini.compose import Composer, sheet, to_images
from mini.measures import distance, fine_detail, summary
from mini.scenes import Batch, Scene, Scenes
from mini.settings import Settings

NOISY = 128  # pictures whose residual noise is estimated
FIGURE_PROMPTS = ("a rocket under a starry sky", "a red car left of a fox on bricks")
FIGURE_DEVIATIONS = (0.0, 0.5, 1.0)
SHEET = 10  # pictures on its side


@dataclass
class Evaluation:
    """The exported pipeline, and what it is measured with.

    Attributes:
        out: where the models were exported to.
        deadline: of `time.monotonic()`; what has not begun by then is left out.
        measured: what an earlier run has measured, which is not measured again.
        save: is called whenever more is measured.
    """

    out: Path
    scenes: Scenes
    composer: Composer
    settings: Settings
    deadline: float = float("inf")
    measured: dict = field(default_factory=dict)
    save: Callable[[], None] = lambda: None
    _plain: dict[int, _Looked] = field(default_factory=dict)

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone("mini", model_path=self.out / "mini", device=str(self.composer.device))

    @cached_property
    def judge(self) -> JudgeNet:
        return MiniJudge.from_directory(self.out / "mini_judge").to(self.composer.device).model

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def draw(
        self,
        prompts: Sequence[str],
        steps: int,
        deviation: float = 0.0,
        guidance: float | None = None,
    ) -> Tensor:
        """Pictures [N, 3, H, W] in [-1, 1]; the n-th prompt has the n-th seed."""
        own, drawn = self.settings.evaluation, []
        guidance = self.settings.sampling.guidance if guidance is None else guidance
        for start in range(0, len(prompts), own.batch):
            part = list(prompts[start : start + own.batch])
            generators = [
                torch.Generator().manual_seed(own.seed + start + n) for n in range(len(part))
            ]
            result = sample(
                self.backbone,
                part,
                policy=FixedDeviation(deviation),
                num_inference_steps=steps,
                guidance_scale=guidance,
                max_sequence_length=self.settings.transformer.padding,
                generator=generators,
                output_type="pt",
            )
            drawn.append(2 * result.images.float() - 1)
        return torch.cat(drawn)

    def render(self, scenes: Sequence[Scene]) -> Tensor:
        batch, size = Batch.of(scenes), self.settings.evaluation.batch
        parts = [self.composer.render(batch[i : i + size]) for i in range(0, len(scenes), size)]
        return torch.cat(parts)

    def run(self) -> dict:
        """All measures by name, in order of importance until the deadline."""
        self.measured["steps"] = self.settings.sampling.steps
        self.measured["guidance"] = self.settings.sampling.guidance
        own, table = self.settings.evaluation, self.measured.setdefault
        self._fill(self.measured, {"categories": self._categories})
        if "vae" not in self.measured and not self.late:
            self._real()
            self.save()
        self._fill(table("by_steps", {}), {str(k): partial(self._stepped, k) for k in own.steps})
        guided = {str(guidance): partial(self._guided, guidance) for guidance in own.guidances}
        self._fill(table("by_guidance", {}), guided)
        for steps in own.deviated:
            rows = table("deviations", {}).setdefault(str(steps), {})
            deviations = sorted(own.deviations, key=abs)
            self._fill(rows, {f"{d:+g}": partial(self._deviated, steps, d) for d in deviations})
        return self.measured

    def _fill(self, rows: dict, parts: Mapping[str, Callable[[], dict]]) -> None:
        """Measure the parts that the rows lack, until the deadline."""
        for name, measure in parts.items():
            if name not in rows and not self.late:
                rows[name] = measure()
                self.save()

    def _categories(self) -> dict:
        """The share of questions that the judge finds answered, in real scenes and drawn ones."""
        own = self.settings.evaluation
        questions = make_questions(self.scenes.colourable, own.questions, own.seed)
        rng = random.Random(own.seed)
        real = self.render([self.scenes.compose(q.request, rng) for q in questions])
        drawn = self.draw([q.prompt for q in questions], self.settings.sampling.steps)
        table: dict[str, dict] = {}
        for source, pictures in (("real", real), ("mini", drawn)):
            found, _ = look(self.judge, pictures)
            for category, rows in _by_category(questions, found).items():
                table.setdefault(category, {})[source] = summary(rows)
        return table

    @cached_property
    def _world(self) -> list[tuple[SceneRequest, Scene]]:
        """Scenes that no training drew, and what their captions say."""
        own = self.settings.evaluation
        rng = random.Random(f"{own.seed}/world")
        drawn = [self.scenes.draw(rng) for _ in range(2 * own.pictures)]
        return [(self.scenes.facts(scene, rng), scene) for scene in drawn]

    @cached_property
    def _reference(self) -> dict[str, dict[str, Tensor]]:
        """Statistics of the first half of these scenes, by set metric."""
        own = self.settings.evaluation
        looked = self._look(self.render([scene for _, scene in self._world[: own.pictures]]))
        return {
            FIDJudge.name: FIDJudge.statistics(looked.features),
            RadialSpectrum.name: RadialSpectrum.statistics(looked.spectrum),
        }

    def _real(self) -> None:
        """Real scenes against others, and against themselves through the VAE."""
        own = self.settings.evaluation
        others = self.render([scene for _, scene in self._world[own.pictures :]])
        first = self.render([scene for _, scene in self._world[: own.pictures]])
        decoded, psnr = self._decode(first)
        self.measured["vae_psnr"] = summary(psnr)
        self.measured["real"] = self._compare(self._look(others, own.pictures))
        self.measured["vae"] = self._compare(self._look(decoded))

    def _synchronous(self, steps: int) -> _Looked:
        """Pictures without a deviation, which are drawn once."""
        if steps not in self._plain:
            self._plain[steps] = self._look(self.draw(self._prompts, steps))
        return self._plain[steps]

    def _stepped(self, steps: int) -> dict:
        return self._compare(self._synchronous(steps))

    def _guided(self, guidance: float) -> dict:
        """A row of pictures of prompts apart, to choose the default by."""
        own, steps = self.settings.evaluation, self.settings.sampling.steps
        apart = self._world[own.pictures :][: own.guided]
        pictures = self.draw([say(request) for request, _ in apart], steps, guidance=guidance)
        return self._compare(self._look(pictures, own.pictures))

    @cached_property
    def _prompts(self) -> list[str]:
        return [say(request) for request, _ in self._world[: self.settings.evaluation.pictures]]

    def _deviated(self, steps: int, deviation: float) -> dict:
        """A row of a fixed deviation, with its changes to D = 0 of the same prompts and noise."""
        plain = looked = self._synchronous(steps)
        if deviation:
            looked = self._look(self.draw(self._prompts, steps, deviation))
        row = self._compare(looked)
        for name in ("scores", "noise"):
            change = np.array(getattr(looked, name)) - np.array(getattr(plain, name))
            row[f"{name}_change"] = summary(change)
        return row

    def _look(self, pictures: Tensor, first: int = 0) -> _Looked:
        """Pictures of what is asked for from the ``first`` scene on."""
        found, features = look(self.judge, pictures)
        images = [np.asarray(image) for image in to_images(pictures[:NOISY])]
        asked = [request for request, _ in self._world[first : first + len(found)]]
        scores = [
            mean_probability(request, each) for request, each in zip(asked, found, strict=True)
        ]
        return _Looked(features, spectra(pictures), scores, [noise_level(i) for i in images])

    def _compare(self, looked: _Looked) -> dict:
        """Against the reference scenes."""
        spectrum = self._reference[RadialSpectrum.name]
        return {
            "frechet": distance(FIDJudge, looked.features, self._reference[FIDJudge.name]),
            "spectrum": {
                **distance(RadialSpectrum, looked.spectrum, spectrum),
                "detail": fine_detail(looked.spectrum, spectrum["mean"]),
            },
            "scores": summary(looked.scores),
            "noise": summary(looked.noise),
        }

    @torch.no_grad()
    def _decode(self, pictures: Tensor) -> tuple[Tensor, list[float]]:
        """Pictures through the VAE, rounded to 8 bits, and the PSNR of each in dB."""
        vae = self.backbone.pipe.vae
        decoded = []
        for part in pictures.split(self.settings.evaluation.batch):
            latents = vae.encode(part.to(vae.device, vae.dtype)).latent_dist.mode()
            decoded.append(vae.decode(latents).sample.float().to(pictures.device))
        whole = ((torch.cat(decoded).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        errors = (whole - pictures).square().flatten(1).mean(1)
        return whole, (10 * (4 / errors).log10()).tolist()

    def sheet(self) -> tuple[Image.Image, list[str]]:
        """`SHEET` × `SHEET` pictures of every category in turn, and their prompts."""
        own = self.settings.evaluation
        each = -(-SHEET * SHEET // len(NEEDS))
        questions = make_questions(self.scenes.colourable, each, own.seed + 1)
        turns = [question for n in range(each) for question in questions[n::each]]
        prompts = [question.prompt for question in turns[: SHEET * SHEET]]
        return sheet(self.draw(prompts, self.settings.sampling.steps), SHEET), prompts

    def figure(self, path: Path) -> None:
        """One prompt per panel, numbers of steps across and deviations down."""
        from matplotlib.figure import Figure

        counts = self.settings.evaluation.figure_steps
        for number, prompt in enumerate(FIGURE_PROMPTS):
            size = 1.5 * len(counts), 1.6 * len(FIGURE_DEVIATIONS)
            figure = Figure(figsize=size, layout="compressed")
            axes = figure.subplots(len(FIGURE_DEVIATIONS), len(counts), squeeze=False)
            for row, deviation in enumerate(FIGURE_DEVIATIONS):
                for column, steps in enumerate(counts):
                    picture = to_images(self.draw([prompt], steps, deviation))[0]
                    axes[row, column].imshow(picture, interpolation="nearest")
                    axes[row, column].set_title(f"K = {steps}, D = {deviation:g}", fontsize=7)
                    axes[row, column].axis("off")
            figure.suptitle(prompt, fontsize=9)
            figure.savefig(path.with_stem(f"{path.stem}-{number}"), dpi=150)


@dataclass
class _Looked:
    """What is known of a set of pictures."""

    features: Tensor
    spectrum: Tensor
    scores: list[float]
    noise: list[float]


def _by_category(questions: Sequence[Question], found: Sequence[Found]) -> dict[str, list[bool]]:
    rows: dict[str, list[bool]] = {}
    for question, each in zip(questions, found, strict=True):
        rows.setdefault(question.category, []).append(is_right(question, each))
    return rows
