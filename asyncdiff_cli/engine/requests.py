"""What a user asks for, checked before anything heavy is imported: prompts, options, conflicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from asyncdiff_cli.engine.checks import (
    check_backbone,
    check_model_path,
    check_unicode,
    unknown,
)
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import existing, expanded
from asyncdiff_cli.engine.limits import (
    MAX_COLUMNS,
    MAX_COUNT,
    MAX_GUIDANCE,
    MAX_IMAGES,
    MAX_SIDE,
    MAX_STEPS,
    MAX_VALUES,
)
from asyncdiff_cli.engine.lora import LoRA
from asyncdiff_cli.engine.modules import find_module
from asyncdiff_cli.engine.policy_specs import find_policy
from asyncdiff_cli.engine.prompt_files import STDIN, read_entries
from asyncdiff_cli.engine.provenance import Provenance
from asyncdiff_cli.engine.reading import shown
from asyncdiff_cli.engine.registry import (
    DTYPES,
    GRIDS,
    OFFLOADS,
    QUANTIZATIONS,
    SCHEDULER_CLASSES,
)

DEFAULT_BACKBONE = "mini"
MAX_SEED = 2**63 - 1
MAX_PROBLEMS = 8
"""Of which a message tells."""
POLICIES = {"deviation", "schedule", "tpm", "policy"}
"""Options that choose the policy, of which a prompt has at most one."""


def _numbers(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _size(value: Any) -> Any:
    if isinstance(value, tuple):
        return value
    if isinstance(value, int | str):
        parts = [part.strip().lstrip("0") for part in str(value).lower().split("x")]
        if len(parts) <= 2 and all(part.isdecimal() for part in parts):
            if max(map(len, parts)) > len(str(MAX_SIDE)) or max(map(int, parts)) > MAX_SIDE:
                raise ValueError(f"a side is at most {MAX_SIDE:,} pixels")
            return int(parts[0]), int(parts[-1])
    raise ValueError(f"a size is one number of pixels, or WIDTHxHEIGHT, not {shown(value)}")


def no_switch(value: Any) -> Any:
    """A value that is not true or false, which pydantic and Python count as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"this is not a yes-or-no setting, so it cannot be {str(value).lower()}")
    return value


def _text(value: str) -> str:
    check_unicode("it", value)
    return value


def _prompt(value: str) -> str:
    if not value.strip():
        raise ValueError("a prompt is empty")
    return value


def not_empty(value: str) -> str:
    """A text that is not blank."""
    if not value.strip():
        raise ValueError("it is empty: give it a value, or leave it out")
    return value


def _bound(value: float) -> float:
    if value not in (0.5, 1.0):
        raise ValueError(f"the bound is 0.5 or 1, not {value:g}")
    return value


def _module(value: str) -> str:
    find_module(value)
    return value


Text = Annotated[str, AfterValidator(_text)]
Prompt = Annotated[Text, AfterValidator(_prompt)]
Numbers = Annotated[
    tuple[float, ...], BeforeValidator(_numbers), Field(min_length=1, max_length=MAX_VALUES)
]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
GuidanceScale = Annotated[float, Field(ge=0, le=MAX_GUIDANCE)]
Size = Annotated[tuple[int, int], BeforeValidator(_size)]
Bound = Annotated[float, AfterValidator(_bound)]


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
    tpm: Annotated[str, AfterValidator(not_empty), AfterValidator(_module)] | None = None
    """A learned policy: a module's directory or repository, or a backbone that ships one."""
    policy: str | None = None
    """A policy by name, `NAME[:VALUE]`; an `@GAMMA` behind it becomes `gamma`."""
    bound: Bound | None = None
    gamma: float | None = None

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
        if sum(getattr(self, name) is not None for name in POLICIES) > 1:
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


class Request(Options):
    """One call of `asyncdiff sample`: its options hold where a prompt has none of its own."""

    prompts: tuple[Prompt, ...] = ()
    prompt_file: Path | None = None
    source: Path | None = None
    """An image to draw again."""
    compare: Annotated[Numbers, Field(max_length=MAX_COLUMNS)] | None = None
    """Several γ for the same noise."""
    batch_size: Count | None = None

    @model_validator(mode="after")
    def _check_source(self) -> Request:
        if self.source is None:
            if not self.prompts and self.prompt_file is None:
                raise ValueError("there is no prompt: give one, or --prompt-file, or --from IMAGE")
            if self.prompt_file not in (None, STDIN):
                existing(self.prompt_file, "file")
            return self
        existing(self.source, "file")
        if self.prompts or self.prompt_file:
            raise ValueError("--from takes its prompt from the image, so give no other")
        for name in ("seed", "num_images", "batch_size", "size"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"--from keeps the noise of the image, which {_option(name)} would change"
                )
        return self


@dataclass(frozen=True)
class Picture:
    """One image to draw.

    Its seed is the request's plus its number, or its line's plus its number among the line's. A
    generator of its own draws its noise, so the noise depends on the seed and nothing else.
    """

    number: int
    """Its place in the request, from 0."""
    row: int
    """Its prompt's place in the request, from 0."""
    prompt: str
    seed: int
    options: Options


NEUTRAL: dict[str, Any] = {
    "scheduler": "model",
    "grid": "model",
    "quantize": "none",
    "offload": "none",
    "lora": ("none",),
    "compile": False,
    "attention": "none",
}
"""What is given for each option of a model that can be switched off, to have it off: over what a
picture was drawn with, or what a recipe says."""


@dataclass(frozen=True)
class ModelChoice:
    """Which model draws, where and how: the arguments of `load_backbone`; None is its default."""

    backbone: str | None = None
    revision: str | None = None
    model_path: Path | None = None
    scheduler: str | None = None
    grid: str | None = None
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    offload: str | None = None
    lora: tuple[str, ...] = ()
    compile: bool = False
    attention: str | None = None
    off: frozenset[str] = field(default=frozenset(), kw_only=True)
    """The names of those that are at their default because that was asked for."""

    @classmethod
    def parse(cls, **given: Any) -> ModelChoice:
        """What is typed, with the words of `NEUTRAL`; None is what was not given."""
        off = frozenset(name for name, word in NEUTRAL.items() if given.get(name) == word)
        own = {k: v for k, v in given.items() if k not in off and v is not None}
        if "model_path" in own:
            own["model_path"] = expanded(own["model_path"])
        return cls(**own, off=off)

    @classmethod
    def options(cls) -> list[str]:
        """The names of the arguments, without `off`."""
        return [each.name for each in fields(cls) if each.name != "off"]

    @property
    def name(self) -> str:
        """The backbone's name."""
        return self.backbone or DEFAULT_BACKBONE

    def to_dict(self) -> dict[str, Any]:
        """Every option as a JSON value."""
        values = {name: getattr(self, name) for name in self.options()}
        path = None if self.model_path is None else str(self.model_path)
        return {**values, "model_path": path, "lora": list(self.lora)}

    def check(self) -> None:
        """Every name is known and every local file there, as far as the disk and names tell.

        Raises:
            InputError: for what is not.
        """
        known: dict[str, tuple[str, str | None, Iterable[str]]] = {
            "solver": ("scheduler", self.scheduler, ("model", *SCHEDULER_CLASSES)),
            "grid": ("grid", self.grid, GRIDS),
            "dtype": ("dtype", self.dtype, DTYPES),
            "quantize": ("quantization", self.quantize, ("none", *QUANTIZATIONS)),
            "offload": ("offload", self.offload, OFFLOADS),
        }
        for option, (kind, value, names) in known.items():
            if value is not None and value not in names:
                raise InputError(f"--{option}: {unknown(kind, value, names)}")
        for text in self.lora:
            LoRA.parse(text).check()
        if self.model_path is not None:
            check_model_path(self.model_path)
        if self.model_path is None or self.model_path.is_file():
            check_backbone(self.name)

    def of(self, record: Provenance) -> ModelChoice:
        """The model of a recorded image, with this choice's changes.

        Raises:
            InputError: for another backbone, whose noise would not be this image's.
        """
        if self.backbone is not None and not _is_same(self.backbone, record.backbone):
            raise InputError(
                f"--from draws with the image's backbone, {record.backbone}; if it is in another"
                " place now, give --model-path DIR"
            )
        gguf = self.model_path is not None and self.model_path.suffix == ".gguf"
        whole = self.model_path is not None and self.model_path.is_dir()
        kept = {
            name: getattr(record, name)
            for name in ("scheduler", "grid", "dtype", "quantize", "lora", "compile", "attention")
            if not getattr(self, name) and name not in self.off
        }
        if gguf:
            kept.pop("quantize", None)
        return replace(
            self,
            **kept,
            backbone=self.backbone or record.backbone,
            revision=self.revision or (None if whole else record.revision),
            device=self.device or ("cpu" if record.device == "cpu" else None),
        )


def _is_same(given: str, recorded: str) -> bool:
    """Whether two names of a backbone are one, or the same directory."""
    return given == recorded or str(expanded(given).absolute()) == recorded


def parse_request(**values: Any) -> Request:
    """The request made of a command line's options; None is one that was not given.

    Raises:
        InputError: naming every option that cannot be, on one line.
    """
    return validated(Request, {k: v for k, v in values.items() if v not in (None, ())})


def check_options(**values: Any) -> Options:
    """What other commands draw with, of the same ranges; None is one that was not given.

    Raises:
        InputError: naming every option that is not.
    """
    return validated(Options, {name: value for name, value in values.items() if value is not None})


def parse_numbers(option: str, text: str | None, kind: type[Any]) -> tuple[Any, ...]:
    """Numbers with commas between them, each once; no number for None.

    Raises:
        InputError: naming the option, for anything else.
    """
    if text is None:
        return ()
    try:
        found = tuple(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        raise InputError(
            f"{option} is numbers with commas between them, not {shown(text)}"
        ) from None
    if len(found) > MAX_COLUMNS:
        raise InputError(f"{option} takes at most {MAX_COLUMNS} numbers, not {len(found):,}")
    return found


def pictures(request: Request) -> list[Picture]:
    """The images that are asked for, in order; reads the prompt file.

    Raises:
        InputError: for a prompt file that cannot be read, naming the line.
    """
    lines = [("", Line(prompt=prompt)) for prompt in request.prompts]
    if request.prompt_file is not None:
        lines += read_prompts(request.prompt_file)
    found: list[Picture] = []
    for row, (where, line) in enumerate(lines):
        options = merged(request, line, where)
        if len(found) + (options.num_images or 1) > MAX_IMAGES:
            raise InputError(f"at most {MAX_IMAGES:,} images are drawn at a time: ask for fewer")
        for i in range(options.num_images or 1):
            seed = (request.seed or 0) + len(found) if line.seed is None else line.seed + i
            if seed > MAX_SEED:
                raise InputError(f"the seeds run beyond {MAX_SEED}: start with a smaller one")
            found.append(Picture(len(found), row, line.prompt, seed, options))
    return found


def merged(request: Options, line: Options, where: str) -> Options:
    """The line's own options, and the request's where it has none."""
    defaults, own = request.given(), line.given()
    if own.keys() & POLICIES:
        defaults = {k: v for k, v in defaults.items() if k not in POLICIES}
    return validated(Options, {**defaults, **own}, where)


def read_prompts(path: Path) -> list[tuple[str, Line]]:
    """Read a file of prompts, or stdin for `-`, as `read_entries` does.

    Returns:
        The lines, and where each is for messages.

    Raises:
        InputError: as `read_entries`, and for a line that is not valid, naming file, line and
            field.
    """
    return [(where, validated(Line, values, where)) for where, values in read_entries(path)]


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """The values as a model; `where` names the line of a file, and "" the command line.

    Raises:
        InputError: naming every value that cannot be.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[:MAX_PROBLEMS]
        problems = [": ".join(_problem(item, where)) for item in first]
        raise InputError("; ".join(problems)) from None


def _problem(item: Any, where: str) -> list[str]:
    """Where, which field and what; a problem of the whole rather than of a field names none."""
    field = str(item["loc"][0]) if item["loc"] else ""
    if not where:
        field = _option(field) if field else ""
    return [part for part in (where, field, item["msg"].removeprefix("Value error, ")) if part]


def _option(field: str) -> str:
    """A field as it is written on the command line."""
    names = {"source": "--from", "prompts": "PROMPT"}
    return names.get(field, "--" + field.replace("_", "-"))
