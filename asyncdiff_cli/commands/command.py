"""What every command does alike: how it reads its arguments, and how it shows its options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from asyncdiff_cli.engine.checks import check_arguments, check_unicode
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.text import as_typed


@dataclass
class Call:
    """What all commands of a call of `asyncdiff` share."""

    arguments: list[str]
    debug: bool = False


class Command(TyperCommand):
    """A command that reads all its arguments by one set of rules.

    None is empty, but what may be (`--negative ""`); texts are Unicode; and in paths `~` is the
    home directory, also where no shell has put it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with_value = [p for p in self.params if not getattr(p, "is_flag", True)]
        if not ctx.resilient_parsing:  # as the shell completes
            check_arguments(args, {name for option in with_value for name in option.opts})
        rest = super().parse_args(ctx, args)
        ctx.params.update({name: _read(value) for name, value in ctx.params.items()})
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options by their `rich_help_panel`, which Typer's plain help leaves out."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                usual = f"{param.param_type_name}s".capitalize()
                name = getattr(param, "rich_help_panel", None) or usual
                panels.setdefault(name, []).append(record)
        for name, records in panels.items():
            with formatter.section(name):
                formatter.write_dl(records)


def _read(value: Any) -> Any:
    """An argument's value with its paths expanded, and its texts checked."""
    if isinstance(value, list | tuple):
        return type(value)(map(_read, value))
    if isinstance(value, Path):
        return expanded(value)
    if isinstance(value, str):
        value = as_typed(value)
        check_unicode("an argument", value)
    return value
