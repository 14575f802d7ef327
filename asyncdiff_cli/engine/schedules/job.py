"""A file that is being measured on a model: its pictures, and where it goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

import asyncdiff_cli
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.memory.footprint import ALONE, Company
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.source import fetch
from asyncdiff_cli.engine.downloads import OnProgress
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.drawing.opening import open_canvas
from asyncdiff_cli.engine.drawing.provenance import versions
from asyncdiff_cli.engine.drawing.seeds import EVALUATION, SCHEDULE, noise_seed
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import REFUSED, unused
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.processes import join
from asyncdiff_cli.engine.prompts.prompt_set import ALL, PromptSet
from asyncdiff_cli.engine.rewards import check_prompts, local_weights
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.schedules.calibration import Calibration, Settled
from asyncdiff_cli.engine.schedules.journal import Journal, difference
from asyncdiff_cli.engine.schedules.picture_set import OnEvaluation, PictureSet, ignore
from asyncdiff_cli.engine.schedules.request import TWO_EVALUATIONS, DrawnRequest, two_evaluations
from asyncdiff_cli.engine.statistics import all_paired

MadeFile: TypeAlias = Schedule | MeasuredSpectrum
OnLine = Callable[[str], None]
"""Called with a line about each thing that was found."""
SETTLED = "settled"
"""The name of the deviations in a journal."""


@dataclass(frozen=True)
class Workbench:
    """What a file is made on.

    Attributes:
        pictures: searched on.
        held_out: tried on; None if nothing is.
        scorers: rewards that score what is tried; None for none.
        journal: what was found already.
        made: how, for the file.
    """

    pictures: PictureSet
    held_out: PictureSet | None
    scorers: RewardGroup | None
    journal: Journal
    made: dict[str, Any]

    def told(self, on_evaluation: OnEvaluation) -> Workbench:
        """The same, which tells of the denoiser's work."""
        held_out = self.held_out and replace(self.held_out, on_evaluation=on_evaluation)
        pictures = replace(self.pictures, on_evaluation=on_evaluation)
        return replace(self, pictures=pictures, held_out=held_out)

    def settled(self) -> list[Settled]:
        """The deviations that an earlier run has settled."""
        return [Settled(**values) for values in self.journal.get(SETTLED, [])]

    def keep(self, settled: Sequence[Settled]) -> None:
        """Have deviations settled."""
        self.journal.keep(SETTLED, [asdict(one) for one in settled])

    def measure(
        self,
        calibration: Calibration,
        policies: Mapping[str, Callable[[], list[Tensor]]],
        on_line: OnLine,
    ) -> dict[str, dict[str, Any]]:
        """How close policies come to many steps on held-out prompts, each measured once.

        Args:
            calibration: of the held-out pictures.
            policies: what draws the last latents of each batch, by name.

        Returns:
            By name, the `distances` of the images, their `spectrum`'s error, and their `scores` by
            reward.
        """

        def look(draw: Callable[[], list[Tensor]]) -> dict[str, Any]:
            latents = draw()
            distances, spectrum = (
                calibration.distances(latents),
                calibration.spectral_error(latents),
            )
            return {"distances": distances, "spectrum": spectrum, "scores": self._scores(latents)}

        found = {}
        for name, draw in policies.items():
            found[name] = own = self.journal.once(f"held-out {name}", partial(look, draw))
            mean = sum(own["distances"]) / len(own["distances"])
            on_line(f"{name}: held-out distance {mean:.4g}")
        return found

    def _scores(self, latents: list[Tensor]) -> dict[str, list[float]]:
        if self.scorers is None or self.held_out is None:
            return {}
        scores = self.scorers.score(self.held_out.decoded(latents), self.held_out.prompts)
        return {name: own.tolist() for name, own in scores.items()}


@dataclass(frozen=True)
class Way:
    """A way to make a file.

    Attributes:
        kind: of file.
        settings: what it adds to those that decide about the result; "by" names it.
        command: what makes the same again.
        evaluations: those of so many images that are searched on, and tried, in K steps.
        make: the search.
    """

    kind: type[MadeFile]
    settings: dict[str, Any]
    command: str
    evaluations: Callable[[int, int, int], int]
    make: Callable[[Workbench, OnLine], MadeFile]


@dataclass(frozen=True)
class MeasuringJob:
    """A file that is to be made, or is there already.

    Attributes:
        path: of its file.
        evaluations: how often the denoiser is asked for an image, at most.
        make: draws, searches and writes; called with `on_evaluation` and `on_line`.
    """

    path: Path
    evaluations: int
    make: Callable[[OnEvaluation, OnLine], MadeFile]

    def run(
        self, on_evaluation: OnEvaluation = ignore, on_line: OnLine = lambda _: None
    ) -> MadeFile:
        """Make it, and write its file.

        Raises:
            AsyncDiffError: for NaN or infinity in the latents, or a file that cannot be written.
        """
        return self.make(on_evaluation, on_line)


def open_measuring(
    request: DrawnRequest,
    choice: ModelChoice,
    way: Way,
    directory: Path,
    on_warning: Callable[[str], None] = lambda _: None,
    on_progress: OnProgress | None = None,
) -> MeasuringJob:
    """Look for what is there, and load what is needed to go on.

    Args:
        directory: for encoded prompts, until the job is done.
        on_warning: told if the model will not fit, before it is loaded.
        on_progress: told about the download of prompts.

    Raises:
        InputError: for what can be refused before a model is loaded, or a search that was begun
            with other settings.
        AsyncDiffError: for what cannot be loaded.
    """
    accelerator = join(choice.device)
    outline = Outline.of(choice, accelerator.device)
    if outline.scheduler == TWO_EVALUATIONS:
        raise InputError(two_evaluations(f"the solver of {outline.name}"))
    outline.check_side(request.side)
    prompts, held_out = request.draw(choice.name, on_progress=on_progress)
    check_prompts(request.rewards, held_out)
    settings = {**way.settings, **_settings(request, outline, prompts, held_out)}
    path = unused(
        request.out,
        lambda place: not os.path.lexists(place) or _is_made_by(way.kind, place, settings),
    )
    if path.is_file():
        there = way.kind.load(path)
        return MeasuringJob(path, 0, lambda *_: there)
    journal = Journal(path, settings)
    fetch(outline.source)
    scorers = _scorers(request, accelerator.device)
    canvas = open_canvas(
        outline,
        accelerator,
        request.guidance,
        request.side,
        request.batch_size,
        [*prompts, *held_out],
        directory,
        scorers=[] if scorers is None else [scorers],
        company=ALONE if scorers is None else Company(tuple(scorers.sizes.values())),
        on_warning=on_warning,
    )
    made = {name: value for name, value in settings.items() if name not in way.kind.model_fields}
    if scorers is not None:
        own = {name: reward.revision for name, reward in scorers.rewards.items()}
        if revisions := {name: revision for name, revision in own.items() if revision}:
            made["reward_revisions"] = revisions
    bench = Workbench(
        _pictures(request, canvas, prompts, SCHEDULE),
        _pictures(request, canvas, held_out, EVALUATION) if held_out else None,
        scorers,
        journal,
        {"by": made.pop("by"), "command": way.command, **made},
    )
    evaluations = way.evaluations(len(prompts), len(held_out), settings["steps"])
    return MeasuringJob(path, evaluations, partial(_make, way, bench, path))


def _scorers(request: DrawnRequest, device: torch.device) -> RewardGroup | None:
    """The rewards that score what is tried, on the CPU yet."""
    if not request.rewards:
        return None
    weights = dict.fromkeys(request.rewards, 1.0)
    return RewardGroup(weights, request.reward_paths, device, keep=request.out.parent / REFUSED)


def _pictures(
    request: DrawnRequest, canvas: Canvas, prompts: tuple[str, ...], stream: int
) -> PictureSet:
    """Prompts, the n-th of which has noise that is a function of the seed, the stream and n."""
    steps = request.steps_of(canvas.backbone.entry.num_inference_steps)
    seeds = tuple(noise_seed(request.seed, stream, n) for n in range(len(prompts)))
    return PictureSet(canvas, prompts, seeds, steps, request.batch_size)


def _make(
    way: Way, bench: Workbench, path: Path, on_evaluation: OnEvaluation, on_line: OnLine
) -> MadeFile:
    made = way.make(bench.told(on_evaluation), on_line)
    made.save(path)
    bench.journal.remove()
    return made


def _is_made_by(kind: type[MadeFile], path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a file is of a kind, and was made with such settings."""
    try:
        there = kind.load(path)
    except InputError:
        return False
    fields = {name: getattr(there, name) for name in settings.keys() & kind.model_fields}
    made = {name: there.made.get(name) for name in settings.keys() - fields.keys()}
    return difference({**made, **fields}, settings) is None


def compared(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Policies by their mean distances from many steps, beside the first of them.

    Args:
        found: what `Workbench.measure` tells of them.
    """
    first = next(iter(found.values()))
    return [
        {"policy": name, **beside(own, first), "spectrum": own["spectrum"]}
        for name, own in found.items()
    ]


def beside(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The paired difference of two policies' distances, and those of their `rewards` by name."""
    distance, *scores = all_paired(
        [
            (own["distances"], other["distances"]),
            *((own["scores"][name], other["scores"][name]) for name in own["scores"]),
        ]
    )
    rewards = dict(zip(own["scores"], map(asdict, scores), strict=True))
    return {**asdict(distance), "rewards": rewards}


def _settings(
    request: DrawnRequest,
    outline: Outline,
    prompts: tuple[str, ...],
    held_out: tuple[str, ...],
) -> dict[str, Any]:
    """All that decides about a file, as JSON values; by its fields' names, where it has them."""
    side = request.side or outline.size
    weights = {
        name: own
        for name in request.rewards
        if (own := local_weights(name, request.reward_paths.get(name))) is not None
    }
    guidance = outline.entry.guidance(request.guidance)
    return {
        "steps": request.steps_of(outline.entry.num_inference_steps),
        "guidance_scale": float(guidance),
        "height": side,
        "width": side,
        **request.search_settings,
        "dataset": request.source(outline.choice.name),
        "seed": request.seed,
        "images": len(prompts),
        "held_out_images": len(held_out),
        "batch_size": request.batch_size,
        "rewards": list(request.rewards),
        **({"reward_weights": weights} if weights else {}),
        "prompts_sha256": PromptSet("drawn", ALL, prompts).fingerprint,
        "held_out_sha256": PromptSet("drawn", ALL, held_out).fingerprint,
        "model": outline.in_force().to_dict(),
        "fingerprint": outline.fingerprint,
        "versions": {"asyncdiff-cli": asyncdiff_cli.__version__, **versions()},
    }
