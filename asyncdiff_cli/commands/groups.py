"""Groups of options: each one argument of a command, and shown under a heading of its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from copy import copy
from typing import Annotated, Any, TypeVar, get_args

from typer.models import OptionInfo

Maker = TypeVar("Maker", bound=Callable[..., Any])

_PANELS: dict[Callable[..., Any], str] = {}


def in_panel(name: str) -> Callable[[Maker], Maker]:
    """Show the options of a group or a command under a heading, but those that name their own.

    A group is a dataclass whose fields are options, or a function whose parameters are. What takes
    it has one parameter for it, annotated with the class, or as `Annotated[T, function]` with the
    type that the function returns.
    """

    def register(make: Maker) -> Maker:
        _PANELS[make] = name
        return make

    return register


def ungrouped(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one parameter for each option of its groups, as Typer reads them."""

    @functools.wraps(command)
    def call(**values: Any) -> None:
        _call(command, values)

    options = _options(command)
    call.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    call.__annotations__ = {option.name: option.annotation for option in options}
    return call


def _call(make: Callable[..., Any], values: dict[str, Any]) -> Any:
    """Call with the values of options, those of a group as the argument that it makes of them."""
    arguments = {}
    for name, parameter in _parameters(make).items():
        group = _group(parameter.annotation)
        arguments[name] = values[name] if group is None else _call(group, values)
    return make(**arguments)


def _options(make: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters, and those of groups in the place of the group, each with its panel."""
    found = []
    for parameter in _parameters(make).values():
        group = _group(parameter.annotation)
        found += [_placed(parameter, _PANELS.get(make))] if group is None else _options(group)
    return found


def _parameters(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(make, eval_str=True).parameters


def _group(annotation: Any) -> Callable[..., Any] | None:
    """What makes an argument of several options; None for an argument that is one."""
    return next((part for part in (annotation, *get_args(annotation)) if part in _PANELS), None)


def _placed(parameter: inspect.Parameter, panel: str | None) -> inspect.Parameter:
    """An option in a panel, if it is in none."""
    match get_args(parameter.annotation):
        case (kind, OptionInfo(rich_help_panel=None) as option):
            option = copy(option)
            option.rich_help_panel = panel
            parameter = parameter.replace(annotation=Annotated[kind, option])
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
