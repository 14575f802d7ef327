"""What a user asks of `calibrate`, `distill` and `spectrum`, checked before heavy imports."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from asyncdiff_cli.engine.backbones.choice import ModelChoice, flag
from asyncdiff_cli.engine.backbones.compatibility import check_asked, check_known_size
from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.fields import Count, GuidanceScale, Seed, Size, validated
from asyncdiff_cli.engine.limits import MAX_COUNT, MAX_STEPS
from asyncdiff_cli.engine.policies.table import SCHEDULE_FILE
from asyncdiff_cli.engine.prompts.hub_set import pinned_source
from asyncdiff_cli.engine.prompts.load import DOWNLOADED, default_source, load_prompts
from asyncdiff_cli.engine.rewards import GUARD, parse_reward_paths, parse_rewards
from asyncdiff_cli.engine.schedules.search import Search
from asyncdiff_cli.engine.training.run_options import is_copy

PROMPTS = 32
"""Prompts that are searched on, and as many that are not, unless asked otherwise."""
BATCH_SIZE = 8
MANY = 4
"""Steps that a spectrum is drawn in, as a multiple of the backbone's."""
TWO_EVALUATIONS = "heun"
"""The solver that asks the denoiser twice a step."""


class DrawnRequest(BaseModel):
    """A file that is to be made of what a model draws. None is the backbone's default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str]
    """What the file holds, for messages."""

    out: Path
    dataset: str | None = None
    """The source that `load_prompts` reads, with the next two."""
    prompts: Path | None = None
    data_dir: Path | None = None
    limit: Count | None = None
    """Prompts that are searched on; default `PROMPTS`, or all if there are fewer."""
    held_out: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """Validation prompts that the result is tried on; default as of `limit`."""
    steps: Annotated[int, Field(ge=2, le=MAX_STEPS)] | None = None
    guidance: GuidanceScale | None = None
    size: Size | None = None
    seed: Seed = 0
    """Draws the prompts and their noise."""
    batch_size: Count = BATCH_SIZE
    rewards: tuple[str, ...] = ()
    """What scores the pictures that the result is tried on, with the guard; none takes part in the
    search."""
    reward_paths: dict[str, Path] = Field({})
    """Local checkpoints of rewards, by name."""

    @field_validator("out")
    @classmethod
    def _check_out(cls, value: Path) -> Path:
        if value.suffix != SCHEDULE_FILE:
            raise ValueError(
                f"a {cls.kind} file ends in {SCHEDULE_FILE}, and {value.name} does not"
            )
        return value

    @field_validator("size")
    @classmethod
    def _check_size(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and value[0] != value[1]:
            raise ValueError("it is one number of pixels here, of a square")
        return value

    @model_validator(mode="after")
    def _check_rewards(self) -> Self:
        if self.rewards and self.held_out == 0:
            raise ValueError("rewards score what the result is tried on, and --held-out 0 is none")
        return self

    @property
    def search_settings(self) -> dict[str, Any]:
        """The options of a search, by name."""
        return {}

    @property
    def sources(self) -> dict[str, str]:
        """What it is made from beside prompts, as a user reads it."""
        return {}

    def steps_of(self, usual: int) -> int:
        """K, where a backbone draws in `usual` steps unless it is told."""
        return self.steps or usual

    @property
    def side(self) -> int | None:
        """Height and width in pixels."""
        return None if self.size is None else self.size[0]

    def source(self, backbone: str) -> str:
        """The set of prompts.

        Raises:
            InputError: as `default_source`.
        """
        return self.dataset or default_source(backbone)

    def given(self) -> dict[str, Any]:
        """The options that say something, but where the result goes, by name."""
        own = {name: getattr(self, name) for name in sorted(self.model_fields_set)}
        named = ("out", "search", "size", "data_dir", "rewards", "reward_paths")
        values = {name: value for name, value in own.items() if name not in named}
        rewards = {
            "rewards": ",".join(self.rewards) or None,
            "reward_path": [f"{name}={path}" for name, path in self.reward_paths.items()],
        }
        return {**values, "size": self.side, **rewards, **self.search_settings}

    def images(self, backbone: str) -> tuple[int, int]:
        """How many are searched on, and tried; nothing is downloaded to tell.

        Raises:
            InputError: as `load_prompts`, and for more than there are.
        """
        if self.source(backbone) in DOWNLOADED and self.prompts is None:
            asked = self.limit, self.held_out
            limit, held_out = (PROMPTS if count is None else count for count in asked)
        else:
            limit, held_out = map(len, self.draw(backbone))
        return limit, held_out

    def draw(self, backbone: str, **options: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The prompts that are searched on, and those that the result is tried on.

        Args:
            options: further arguments of `load_prompts`.

        Raises:
            InputError, AsyncDiffError: as `load_prompts`, and for more than there are.
        """

        def draw(split: str, count: int | None) -> tuple[str, ...]:
            if count == 0:
                return ()
            source = self.source(backbone)
            texts = load_prompts(source, split, self.data_dir, self.prompts, **options)
            return texts.draw(min(PROMPTS, len(texts)) if count is None else count, self.seed)

        return draw("train", self.limit), draw("validation", self.held_out)


class ScheduleRequest(DrawnRequest):
    """A schedule that is to be searched for."""

    kind: ClassVar[str] = "schedule"
    search: Search = Search()

    @property
    def search_settings(self) -> dict[str, Any]:
        return vars(self.search)


class SpectrumRequest(DrawnRequest):
    """A spectrum that is to be measured."""

    kind: ClassVar[str] = "spectrum"
    held_out: Literal[0] = 0

    def steps_of(self, usual: int) -> int:
        """K: few steps lose the detail that is to be measured."""
        return self.steps or min(MANY * usual, MAX_STEPS)


AnyRequest = TypeVar("AnyRequest", bound=DrawnRequest)


def parse_drawn_request(
    kind: type[AnyRequest],
    choice: ModelChoice,
    defaults: Mapping[str, Any] = MappingProxyType({}),
    **values: Any,
) -> AnyRequest:
    """The request made of a command line's options; None is one that was not given.

    Args:
        kind: the class of request.
        defaults: what takes the place of options that were not given.
        values: `prompts` may be a file of prompts or a data set, too, in the place of `dataset`.

    Raises:
        InputError: for options that cannot be, on one line.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if search := {name: given.pop(name) for name in vars(Search()) if name in given}:
        given["search"] = Search(**search)
    if "dataset" not in given and "prompts" in given and not is_copy(given["prompts"]):
        given["dataset"] = str(given.pop("prompts"))
    if "dataset" in given:
        given["dataset"] = pinned_source(given["dataset"])
    rewards = parse_rewards(given.pop("rewards")) if "rewards" in given else []
    given["reward_paths"] = parse_reward_paths(given.pop("reward_path", ()), rewards)
    given["rewards"] = (*rewards, GUARD) if rewards and GUARD not in rewards else tuple(rewards)
    given = {**{name: value for name, value in defaults.items() if value is not None}, **given}
    if choice.scheduler == TWO_EVALUATIONS:
        raise InputError(two_evaluations(f"--solver {TWO_EVALUATIONS}"))
    request = validated(kind, given)
    check_asked(choice.changed(backbone=choice.name))
    if request.size is not None:
        check_known_size(choice, *request.size)
    if request.source(choice.name) not in DOWNLOADED:
        request.draw(choice.name)
    return request


def two_evaluations(what: str) -> str:
    """Why nothing is measured with a solver."""
    return f"{what} evaluates twice a step: give --solver euler, dpmpp or unipc"


def command_line(words: Sequence[str], choice: ModelChoice, options: Mapping[str, Any]) -> str:
    """The command that makes the same again, wherever it is put.

    Args:
        words: its name and arguments.
        options: by name, without those of the model.
    """
    line = ["asyncdiff", *words]
    given = {flag(name): value for name, value in choice.to_dict().items()}
    given |= {"--" + name.replace("_", "-"): value for name, value in options.items()}
    for option, value in given.items():
        if value is True:
            line.append(option)
        elif value is not None and value is not False:
            for each in value if isinstance(value, list) else [value]:
                line += [option, str(each)]
    return shlex.join(line)


def drawing(images: int, tried: int, steps: int) -> int:
    """Count the evaluations of drawing so many images in K steps."""
    return images * steps


def measuring_cost(
    request: DrawnRequest, choice: ModelChoice, evaluations: Callable[[int, int, int], int]
) -> dict[str, Any]:
    """What a request would cost, as JSON values; nothing is loaded or downloaded to tell.

    Args:
        evaluations: those of so many images that are searched on, and tried, in K steps.

    Raises:
        InputError: for prompts that there are not.
        AsyncDiffError: for a backbone that cannot be looked up.
    """
    images, tried = request.images(choice.name)
    steps = request.steps or request.steps_of(_usual_steps(choice))
    return {
        "dry_run": True,
        "file": str(request.out),
        "backbone": choice.name,
        **request.sources,
        "steps": steps,
        "images": images,
        "held_out_images": tried,
        **request.search_settings,
        "evaluations": evaluations(images, tried, steps),
    }


def _usual_steps(choice: ModelChoice) -> int:
    """A backbone's K; one without a name is looked up."""
    if choice.name in REGISTRY:
        return REGISTRY[choice.name].num_inference_steps
    from asyncdiff_cli.engine.backbones.outline import Outline

    return Outline.of(choice).entry.num_inference_steps
