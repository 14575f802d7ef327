"""Pictures of one noise with and without deviations, by a model that is loaded once."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import torch
from PIL import Image, ImageChops, ImageStat
from torch import Tensor

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.memory.footprint import SMALL_MODEL
from asyncdiff_cli.engine.checks import check_deviation
from asyncdiff_cli.engine.drawing.draw import Drawing, Written, check_sizes, draw, write
from asyncdiff_cli.engine.drawing.job import Job, open_job
from asyncdiff_cli.engine.drawing.plan import WAYS, Batch, Panel, Plan, named, plan_request
from asyncdiff_cli.engine.drawing.provenance import Provenance, versions
from asyncdiff_cli.engine.drawing.request import Request
from asyncdiff_cli.engine.drawing.stepwise import Estimates
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.comparison import REWARDS
from asyncdiff_cli.engine.files import unused
from asyncdiff_cli.engine.locks import hold
from asyncdiff_cli.engine.policies.asking import only_deviates
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.given import Synchronous
from asyncdiff_cli.engine.policies.schedule_file import Schedule, schedule_of
from asyncdiff_cli.engine.policies.specs import find_policy, make_policy
from asyncdiff_cli.engine.policies.table import SCHEDULE_FILE
from asyncdiff_cli.engine.rewards import GUARD, reward_class, score
from asyncdiff_cli.ui.curve import Curve, policy_of
from asyncdiff_cli.ui.upload import Files, kept

KEPT = 4
"""Pictures that are not drawn again while they are asked for."""
AMPLIFIED = 8
"""How many times a difference is shown, which would be too dark to see."""
MADE_BY = "ui"
"""How a schedule file says that it was made by hand."""


@dataclass(frozen=True)
class Take:
    """A picture, and what its run went through.

    Attributes:
        estimates: its times, and x̂0 of each evaluation, in a batch of 1.
    """

    image: Image.Image
    record: Provenance
    estimates: Estimates

    @property
    def sigmas(self) -> Tensor:
        """t_k of each evaluation, and a last 0, [evaluations + 1] on the CPU."""
        return self.estimates.sigmas

    @property
    def curve(self) -> Curve:
        """What the editor shows of it."""
        record = self.record
        times = tuple(self.sigmas.tolist())
        return Curve(times, record.cond_sigmas, record.deviations, record.gamma)


@dataclass(frozen=True)
class Pair:
    """A picture without deviations and one with them, of the same noise, and what draws both."""

    plan: Plan
    synchronous: Take
    asynchronous: Take

    @property
    def takes(self) -> tuple[Take, Take]:
        return self.synchronous, self.asynchronous

    @property
    def mean_difference(self) -> float:
        """How far apart they are, the mean of all pixels and channels, of 255."""
        return sum(ImageStat.Stat(self._difference()).mean) / 3

    @property
    def difference(self) -> Image.Image:
        """How far apart they are at each pixel and channel, `AMPLIFIED` times."""
        return self._difference().point(lambda value: min(255, AMPLIFIED * value))

    def _difference(self) -> Image.Image:
        return ImageChops.difference(*(take.image.convert("RGB") for take in self.takes))


class Studio:
    """A loaded model, where its files go, and the pictures that were drawn last.

    Args:
        job: the model, and the request that the page begins with.
    """

    def __init__(self, job: Job) -> None:
        self._job: Job | None = job
        self._takes: dict[tuple[object, ...], Take] = {}

    @classmethod
    def open(
        cls,
        request: Request,
        choice: ModelChoice,
        out: Path,
        on_warning: Callable[[str], None] = lambda _: None,
    ) -> Studio:
        """Load a model, as `open_job` does, and raise what it raises."""
        return cls(open_job(request, choice, out, on_warning))

    @property
    def job(self) -> Job:
        """The model that is loaded, and where files go.

        Raises:
            AsyncDiffError: if there is none.
        """
        if self._job is None:
            raise AsyncDiffError("no model is loaded, since the last one failed to: start again")
        return self._job

    @property
    def is_quick(self) -> bool:
        """Whether a picture takes so little that it may be drawn after every change."""
        transformer = self.job.backbone.pipe.transformer
        held = sum(weight.numel() * weight.itemsize for weight in transformer.parameters())
        return self.job.backbone.device.type != "cpu" or held <= SMALL_MODEL

    def switch(self, backbone: str, on_warning: Callable[[str], None] = lambda _: None) -> None:
        """Load another backbone in the place of this one, which is there again if that fails.

        Never are both in memory. What was said of the first one's weights is not said of the
        other's.

        Raises:
            InputError, AsyncDiffError: as `open_job`.
        """
        before, out = self.job.model, self.job.out
        choice = ModelChoice.parse(
            backbone=backbone, device=before.device, offload=before.offload, grid=before.grid
        )
        choice.check()
        failure = self._load(choice, out, on_warning)
        if failure is not None and self._job is None:
            self._load(before, out, on_warning)
        if failure is not None:
            raise failure

    def _load(
        self, choice: ModelChoice, out: Path, on_warning: Callable[[str], None]
    ) -> Exception | None:
        """Load a model in the place of another one; return why not, if it cannot be."""
        request = Request(prompts=("a picture",))
        try:
            self._job = open_job(request, choice, out, on_warning, before_loading=self._make_room)
        except Exception as error:  # its frames hold what was loaded so far
            error.__context__ = error.__cause__ = None
            return error.with_traceback(None)
        return None

    def _make_room(self) -> None:
        """Let go of the model, and of what it drew."""
        self._job = None
        self._takes.clear()
        gc.collect()  # hooks and the models that they are of hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def plan(self, request: Request) -> Plan:
        """The two pictures of a request for one, and the panel of both.

        Raises:
            InputError: as `plan_request`, and for a size that the backbone cannot draw.
        """
        entry, size = self.job.backbone.entry, self.job.backbone.size
        (chosen,) = plan_request(request, entry, size).batches
        file = str(chosen.files[0])
        names = tuple(named(file, way) for way in WAYS)
        batches = chosen.beside(Synchronous()), replace(chosen, files=names[1:])
        plan = Plan(batches, (Panel(named(file, "compare"), (names,), columns=WAYS),))
        check_sizes(plan, self.job.backbone)
        return plan

    def warnings(self, plan: Plan) -> list[str]:
        """Lines about words that the backbone does not know."""
        return replace(self.job, plan=plan).warnings

    def draw(self, request: Request, on_step: Callable[[StepState], None] = lambda _: None) -> Pair:
        """Draw the two pictures of a request, but those that were drawn just before.

        Raises:
            InputError: as `plan`.
            AsyncDiffError: for a failure while drawing.
        """
        plan = self.plan(request)
        return Pair(plan, *(self._take(batch, on_step) for batch in plan.batches))

    def _take(self, batch: Batch, on_step: Callable[[StepState], None]) -> Take:
        key = batch.settings, batch.drawn
        take = self._takes.pop(key, None) or self._draw(batch, on_step)
        self._takes[key] = take
        while len(self._takes) > KEPT:
            del self._takes[next(iter(self._takes))]
        return take

    def _draw(self, batch: Batch, on_step: Callable[[StepState], None]) -> Take:
        estimates = Estimates(self.job.backbone.dtype)

        def see(state: StepState) -> None:
            estimates.see(state)
            on_step(state)

        (drawing,) = draw(batch, self.job.backbone, see)
        return Take(drawing.image, drawing.record, estimates)

    def estimates(self, take: Take) -> list[Image.Image]:
        """What each evaluation takes the picture to be, x̂0."""
        record = take.record
        frames = take.estimates.decode(self.job.backbone, 0, record.height, record.width)
        return list(frames.values())

    def scores(self, pair: Pair) -> dict[str, tuple[float, float] | str]:
        """The scores of both pictures by each reward that is here without a download, or why not.

        Raises:
            AsyncDiffError: for a reward that cannot be loaded, or a score that is no number.
        """
        names = REWARDS.get(self.job.backbone.name, ("sharpness", GUARD))
        return {name: self._score(name, pair) for name in names}

    def _score(self, name: str, pair: Pair) -> tuple[float, float] | str:
        prompt = pair.asynchronous.record.prompt
        images = [take.image for take in pair.takes]
        try:
            reward_class(name).check_image(images[0])
        except InputError as error:
            return str(error)
        if refusal := reward_class(name).refuses(prompt):
            return refusal
        without, with_deviations = score(name, images, prompt, device=self.job.model.device)
        return without.item(), with_deviations.item()

    def save(self, pair: Pair) -> list[Written]:
        """Write both pictures and their panel, each with what it was drawn from.

        Raises:
            InputError: if another command writes to the directory.
            AsyncDiffError: if they cannot be written.
        """
        drawn = [
            [Drawing(str(batch.files[0]), take.image, take.record)]
            for batch, take in zip(pair.plan.batches, pair.takes, strict=True)
        ]
        job = self.job
        with hold(job.out):
            return list(write(pair.plan, drawn, job.backbone, job.out, job.parameters))

    def keep(self, files: Files) -> tuple[Path, str]:
        """Write files that were uploaded, if they are a policy's.

        Returns:
            Where, and the line of the policy.

        Raises:
            InputError, AsyncDiffError: as `kept`, and for files that are no policy's.
        """
        with hold(self.job.out), kept(files, self.job.out) as place:
            line = policy_of(str(place))
            make_policy(find_policy(line), self.job.backbone.entry)
        return place, line

    def save_schedule(self, pair: Pair, name: str) -> Path:
        """Write the deviations of the second picture as a schedule file.

        Returns:
            Where: as `unused`.

        Raises:
            InputError: for a run that no schedule draws, or a name that is a path.
            AsyncDiffError: if it cannot be written.
        """
        schedule = self._schedule(pair)
        name = name.strip().removesuffix(SCHEDULE_FILE)
        if not name or PureWindowsPath(name).name != name:  # which knows all systems' separators
            raise InputError(f"{name!r} is not a file's name: give one without a directory")
        path = self.job.out / f"{name}{SCHEDULE_FILE}"
        with hold(self.job.out):
            path = unused(path, lambda place: not os.path.lexists(place) or _holds(place, schedule))
            schedule.save(path)
        return path

    def _schedule(self, pair: Pair) -> Schedule:
        take, settings = pair.asynchronous, pair.plan.batches[1].settings
        record = take.record
        _check_schedule(record.deviations, settings.policy)
        return schedule_of(
            self.job.backbone,
            take.sigmas,
            record.deviations,
            steps=record.num_inference_steps,
            guidance_scale=record.guidance_scale,
            height=record.height,
            width=record.width,
            made={
                "by": MADE_BY,
                "policy": record.policy,
                "gamma": record.gamma,
                "prompt": record.prompt,
                "seed": record.seed,
                "versions": versions(),
            },
        )


def _check_schedule(deviations: Sequence[float], policy: object) -> None:
    """Check that a schedule of these deviations draws what the policy draws."""
    if not deviations:
        raise InputError("a run of one step has no deviations: take more steps")
    if not only_deviates(policy):
        raise InputError(
            "this policy scales the velocity too, and a schedule holds deviations alone: drag one"
            " of them, and save what that draws"
        )
    for deviation in deviations:
        check_deviation(deviation)


def _holds(path: Path, schedule: Schedule) -> bool:
    """Whether a file is this schedule."""
    try:
        return Schedule.load(path) == schedule
    except InputError:
        return False
