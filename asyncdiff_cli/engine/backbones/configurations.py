"""What a model's configuration may ask for: values of their types, and sizes that models have.

The libraries build what a configuration says and find out while they draw, if at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import diffusers
from pydantic import model_validator

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.limits import MAX_CHANNELS, MAX_DEPTH, MAX_PLACES, MAX_SETTING, MAX_UNITS
from asyncdiff_cli.engine.reading import Read, read_json, shown

CONFIGURATION_FILES = ("config.json", "scheduler_config.json", "tokenizer_config.json")
BOUNDS = (
    (re.compile(r"(^|_)(layers|depth|blocks|layers_per_block|extra_ids)$"), MAX_DEPTH),
    (re.compile(r"^pos_embed_max_size$"), MAX_PLACES),
    (re.compile(r"(^|_)(vocab_size|positions|position_embeddings|lens|timesteps)$"), MAX_UNITS),
    (re.compile(r"^d_\w+$|(^|_)(size|dim|channels|heads|groups)$"), MAX_CHANNELS),
)
"""What a number of this name makes in memory or time, whatever the file of weights holds."""
JSON: dict[Any, tuple[type, ...]] = {
    int: (int, float),
    float: (int, float),
    bool: (bool,),
    str: (str,),
    list: (list,),
    tuple: (list,),
    NoneType: (NoneType,),
}
"""What a value of a Python type is in JSON; where a whole number is wanted, 3.0 is one."""


class Configuration(Read):
    """One of the `CONFIGURATION_FILES` of a component."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Configuration:
        for name, number in _whole_numbers("", self.model_extra):
            most = next((most for pattern, most in BOUNDS if pattern.search(name)), None)
            if most is not None and not 0 <= number <= most:
                raise ValueError(f"{name}: a model has 0 to {most:,}, not {shown(number)}")
        return self


def _whole_numbers(name: str, value: Any) -> Iterator[tuple[str, int]]:
    """The whole numbers of nested JSON values, each with the nearest name."""
    if isinstance(value, dict):
        for key, own in value.items():
            yield from _whole_numbers(key, own)
    elif isinstance(value, list):
        for own in value:
            yield from _whole_numbers(name, own)
    elif isinstance(value, int):
        yield name, value


def check_configurations(directory: Path, components: Mapping[str, list[str | None]]) -> None:
    """The configurations of components, as far as they are there, can be those of models.

    Args:
        components: the library and class of each.

    Raises:
        InputError: for one of another shape, a value of another type than its class takes, or a
            size that no model has.
    """
    for name, (library, class_name) in components.items():
        for path in (directory / name / file for file in CONFIGURATION_FILES):
            if class_name and path.exists():
                own = read_json(path, Configuration).model_extra or {}
                if library == "diffusers":
                    _check_types(path, own, getattr(diffusers, class_name, None))


def _check_types(path: Path, values: Mapping[str, Any], kind: Any) -> None:
    """The values are such as a class of diffusers takes; None is one that it does not have."""
    for parameter in signature(kind).parameters.values() if kind else ():
        value, types = values.get(parameter.name, parameter.default), _types(parameter)
        if value == parameter.default or types is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        sane = not number or (math.isfinite(value) and abs(value) <= MAX_SETTING)
        if type(value) not in types or not sane:
            names = " or ".join(dict.fromkeys(own.__name__.removesuffix("Type") for own in types))
            raise InputError(
                f"{path} is damaged: {parameter.name}: {names} is expected, not {shown(value)}"
            )


def _types(parameter: Parameter) -> tuple[type, ...] | None:
    """The types that a parameter's value has in JSON; None if that is not said."""
    said, default = parameter.annotation, parameter.default
    union = get_origin(said) in (Union, UnionType)
    kinds = [get_origin(own) or own for own in (get_args(said) if union else (said,))]
    if said is Parameter.empty:
        kinds = [] if default is None else [type(default)]
    elif default is None:  # which not all that have it say
        kinds.append(NoneType)
    if not kinds or not all(kind in JSON for kind in kinds):
        return None
    return tuple(dict.fromkeys(own for kind in kinds for own in JSON[kind]))
