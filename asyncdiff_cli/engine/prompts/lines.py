"""A prompt with how its images are drawn, as one line of a file of prompts has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    field_validator,
    model_validator,
)

from asyncdiff_cli.engine.fields import (
    Bound,
    ControlScale,
    Count,
    GuidanceScale,
    NotEmpty,
    Numbers,
    Prompt,
    Seed,
    Size,
    Steps,
    Strength,
    Text,
    no_switch,
    path_not_empty,
    validated,
)
from asyncdiff_cli.engine.files import existing
from asyncdiff_cli.engine.policies.modules import check_module
from asyncdiff_cli.engine.policies.specs import find_policy
from asyncdiff_cli.engine.prompts.files import read_entries

POLICY_OPTIONS = {"deviation", "schedule", "tpm", "policy"}
"""Options that choose the policy, of which a prompt has at most one."""


def _module(value: str) -> str:
    check_module(value)
    return value


def _existing_file(value: Path) -> Path:
    return existing(value, "file")


PictureFile = Annotated[Path, BeforeValidator(path_not_empty), AfterValidator(_existing_file)]


class Options(BaseModel):
    """How the images of a prompt are drawn. None is the backbone's default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: Seed | None = None
    num_images: Count | None = None
    steps: Steps | None = None
    guidance: GuidanceScale | None = None
    negative: Text | None = None
    size: Size | None = None
    """Width and height in pixels."""
    deviation: float | None = None
    """D in [-bound, bound], the same after every step."""
    schedule: Numbers | None = None
    """D after each step."""
    tpm: Annotated[NotEmpty, AfterValidator(_module)] | None = None
    """A learned policy: a module's directory or repository, or a backbone that ships one."""
    policy: str | None = None
    """A policy by name, `NAME[:VALUE]`; an `@GAMMA` behind it becomes `gamma`."""
    bound: Bound | None = None
    gamma: float | None = None
    image: PictureFile | None = None
    """What is drawn from, in place of noise alone."""
    strength: Strength | None = None
    """How much of the image is drawn anew."""
    controlnet: NotEmpty | None = None
    """A control net's directory, or its repository OWNER/NAME[@REVISION]."""
    control_image: PictureFile | None = None
    """What it is shown."""
    control_scale: ControlScale | None = None
    """What its residuals are multiplied by."""

    _refuse_switches = field_validator("*", mode="before")(no_switch)

    @model_validator(mode="before")
    @classmethod
    def _split_policy(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("policy"), str):
            return values
        spec = find_policy(values["policy"])
        if spec.gamma is None:
            return {**values, "policy": spec.label}
        if values.get("gamma") is not None:
            raise ValueError("give gamma once: by itself, or as policy@GAMMA")
        return {**values, "policy": spec.label, "gamma": spec.gamma}

    @model_validator(mode="after")
    def _check_deviations(self) -> Options:
        if sum(getattr(self, name) is not None for name in POLICY_OPTIONS) > 1:
            raise ValueError(
                "give one of a deviation, a schedule of them, a module (tpm), and a policy by name"
            )
        if self.tpm is not None and self.bound is not None:
            raise ValueError("a module keeps the bound that it was trained with")
        if self.policy is not None and self.bound is not None:
            raise ValueError("a bound is for a deviation or a schedule, not for a policy by name")
        bound = self.bound or 1.0
        for value in (self.deviation or 0.0, *(self.schedule or ())):
            if abs(value) > bound:
                raise ValueError(f"deviation {value:g} is outside [-{bound:g}, {bound:g}]")
        return self

    def given(self) -> dict[str, Any]:
        """The options that are not left to the backbone."""
        return {
            name: value
            for name in Options.model_fields
            if (value := getattr(self, name)) is not None
        }


class Line(Options):
    """One prompt with its own options."""

    prompt: Prompt


def check_options(**values: Any) -> Options:
    """What other commands draw with, of the same ranges; None is one that was not given.

    Raises:
        InputError: naming every option that is not.
    """
    return validated(Options, {name: value for name, value in values.items() if value is not None})


def merged(request: Options, line: Options, where: str) -> Options:
    """The line's own options, and the request's where it has none."""
    defaults, own = request.given(), line.given()
    if own.keys() & POLICY_OPTIONS:
        defaults = {k: v for k, v in defaults.items() if k not in POLICY_OPTIONS}
    return validated(Options, {**defaults, **own}, where)


def read_prompts(path: Path, data_dir: Path | None = None) -> list[tuple[str, Line]]:
    """Read a file of prompts, stdin for `-`, or a data set, as `read_entries` does.

    Args:
        data_dir: as of `read_entries`.

    Returns:
        The lines, and where each is for messages.

    Raises:
        InputError: as `read_entries`, and for a line that is not valid, naming file, line and
            field.
    """
    entries = read_entries(path, data_dir)
    return [(where, validated(Line, values, where)) for where, values in entries]
