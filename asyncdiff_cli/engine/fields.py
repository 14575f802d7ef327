"""Fields of what users write: their types and ranges, and one line for all that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
)

from asyncdiff_cli.engine.checks import check_unicode
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.limits import (
    MAX_COLUMNS,
    MAX_COUNT,
    MAX_GUIDANCE,
    MAX_SIDE,
    MAX_STEPS,
    MAX_VALUES,
)
from asyncdiff_cli.engine.reading import Problem, problems, shown

MAX_SEED = 2**63 - 1
MAX_PROBLEMS = 8
"""Problems that a message tells of."""


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


def path_not_empty(value: Any) -> Any:
    """A path that says where: an empty one would be the current directory."""
    return not_empty(value) if isinstance(value, str) else value


def _bound(value: float) -> float:
    if value not in (0.5, 1.0):
        raise ValueError(f"the bound is 0.5 or 1, not {value:g}")
    return value


Text = Annotated[str, AfterValidator(_text)]
Prompt = Annotated[Text, AfterValidator(_prompt)]
NotEmpty = Annotated[str, AfterValidator(not_empty)]
Numbers = Annotated[
    tuple[float, ...], BeforeValidator(_numbers), Field(min_length=1, max_length=MAX_VALUES)
]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Strength = Annotated[float, Field(gt=0, le=1)]
ControlScale = Annotated[float, Field(ge=0, le=10)]
GuidanceScale = Annotated[float, Field(ge=0, le=MAX_GUIDANCE)]
Size = Annotated[tuple[int, int], BeforeValidator(_size)]
Bound = Annotated[float, AfterValidator(_bound)]


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


Validated = TypeVar("Validated", bound=BaseModel)


def validated(model: type[Validated], values: Mapping[str, Any], where: str = "") -> Validated:
    """The values as a model; `where` names the line of a file, and "" the command line.

    Raises:
        InputError: naming every value that cannot be.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = problems(error, model)[:MAX_PROBLEMS]
        raise InputError("; ".join(_placed(problem, where) for problem in found)) from None


def _placed(problem: Problem, where: str) -> str:
    """A problem behind the line of a file, or by the option of the command line that it is of."""
    if where:
        return f"{where}: {problem}"
    option = option_of(problem.place.partition(".")[0]) if problem.place else ""
    return str(problem._replace(place=option))


def option_of(field: str) -> str:
    """A field as it is written on the command line."""
    names = {"source": "--from", "prompts": "PROMPT"}
    return names.get(field, "--" + field.replace("_", "-"))
