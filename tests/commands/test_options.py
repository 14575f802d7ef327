"""Groups of options: one argument of a command each, and a panel of its help."""

import inspect
import re
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from asyncdiff_cli.app import app
from asyncdiff_cli.commands.command import Command
from asyncdiff_cli.commands.groups import in_panel, ungrouped
from asyncdiff_cli.engine import launching
from asyncdiff_cli.engine.policies.table import usages

MOST_PARAMETERS = 12
TRAINING, WHAT, TIME, SAMPLING = "Training", "What to draw", "Conditioning time", "Sampling"
SEARCH, SCORING, MODEL, OUT = "Search", "Scoring", "Model and device", "Where it goes"
ORDER = [TRAINING, WHAT, TIME, SAMPLING, SEARCH, SCORING, MODEL, OUT]
PANELS = {
    "sample": [WHAT, TIME, SAMPLING, MODEL, OUT],
    "train": [TRAINING, WHAT, MODEL, OUT],
    "eval": [WHAT, TIME, SAMPLING, SCORING, MODEL, OUT],
    "sweep": [WHAT, TIME, SAMPLING, SCORING, MODEL, OUT],
    "calibrate": [WHAT, SAMPLING, SEARCH, SCORING, MODEL, OUT],
    "distill": [WHAT, SAMPLING, SEARCH, SCORING, MODEL, OUT],
    "spectrum": [WHAT, SAMPLING, MODEL, OUT],
    "panel": [WHAT, TIME, SAMPLING, MODEL, OUT],
    "score": [SCORING, MODEL, OUT],
    "explain": [WHAT, TIME, SAMPLING, MODEL, OUT],
    "ui": [WHAT, TIME, SAMPLING, MODEL, OUT],
}


def panels(text):
    """The panels of a help, each with its lines; a panel of the description is none."""
    _, *parts = re.split(r"^(\S.*):$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def commands(group=None, *path):
    """The arguments that name each command, with the command."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_help_shows_the_options_in_panels(asyncdiff, names):
    shown = panels(asyncdiff(*names, "--help").out)
    assert re.findall(r"--[\w-]+", shown.pop("Options")) == ["--help"]
    shown.pop("Arguments", None)
    found = list(shown)
    assert found == sorted(found, key=ORDER.index)
    assert found == PANELS.get(" ".join(names), found)
    assert "--json" in shown[OUT]


def test_what_commands_share_is_shown_alike(asyncdiff):
    evaluation, sweep, panel = (
        panels(asyncdiff(name, "--help").out) for name in ("eval", "sweep", "panel")
    )
    for name in (WHAT, SAMPLING, MODEL, SCORING):
        assert evaluation[name] == sweep[name]
    assert evaluation[SAMPLING] == panel[SAMPLING]


@pytest.mark.parametrize("command", ["sample", "eval"])
def test_help_names_every_policy_of_the_table(asyncdiff, command):
    text = panels(asyncdiff(command, "--help").out)[TIME]
    assert "".join(usages().split()) in "".join(text.split())  # lines may break at a hyphen


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_no_command_takes_more_parameters_than_can_be_read(names):
    function = inspect.unwrap(COMMANDS[names].callback)
    assert function.__module__.startswith("asyncdiff_cli.commands.")
    assert len(inspect.signature(function).parameters) <= MOST_PARAMETERS


@pytest.mark.parametrize("line", [["train"], ["eval"], ["sweep", "--gammas", "1,2"]], ids="".join)
def test_a_command_leaves_itself_to_its_processes(asyncdiff, monkeypatch, line):
    launched = []
    monkeypatch.setattr(launching, "launch", lambda *given: launched.append(given) or 3)
    arguments = [*line, "--processes", "2", "--device", "cpu"]
    assert asyncdiff(*arguments).code == 3
    assert launched == [(2, arguments, "cpu")]


def refuse_odd(value):
    if value % 2:
        raise typer.BadParameter("odd")
    return value


@in_panel("Size")
@dataclass(frozen=True)
class Size:
    height: Annotated[int, typer.Option(callback=refuse_odd)] = 2
    width: Annotated[int, typer.Option("--breadth", "-b", rich_help_panel="Rare")] = 4


@in_panel("Colour")
def _colour(
    name: Annotated[str, typer.Option(autocompletion=lambda: ["red", "green"])], size: Size
) -> str:
    return f"{name} {size.height}x{size.width}"


@pytest.fixture
def grouped():
    """A command of a group within a group, and what it was called with."""
    calls = []

    @in_panel("Own")
    def paint(
        *,
        where: Annotated[str, typer.Argument()],
        colour: Annotated[str, _colour],
        context: typer.Context,
        count: Annotated[int, typer.Option()] = 1,
    ) -> None:
        calls.append((where, colour, context.command.name, count))

    small = typer.Typer(rich_markup_mode=None, add_completion=False)
    small.command("paint", cls=Command)(ungrouped(paint))
    return typer.main.get_command(small), calls


def test_a_group_reaches_its_command_as_one_argument(grouped):
    command, calls = grouped
    command(["wall", "--name", "red", "-b", "6"], standalone_mode=False)
    command(["door", "--name", "green", "--height", "8", "--count", "3"], standalone_mode=False)
    assert calls == [("wall", "red 2x6", "paint", 1), ("door", "green 8x4", "paint", 3)]


def test_a_group_keeps_what_its_options_refuse_and_complete(grouped):
    command, calls = grouped
    with pytest.raises(typer.BadParameter, match="odd"):
        command(["wall", "--name", "red", "--height", "3"], standalone_mode=False)
    assert calls == []
    (name,) = (param for param in command.params if param.name == "name")
    with command.make_context("paint", [], resilient_parsing=True) as context:
        assert [item.value for item in name.shell_complete(context, "g")] == ["green"]


def test_a_group_is_shown_under_its_heading(grouped):
    command, _ = grouped
    with command.make_context("paint", [], resilient_parsing=True) as context:
        shown = panels(context.get_help())
    assert {name: re.findall(r"--?\w+", text) for name, text in shown.items()} == {
        "Arguments": [],
        "Colour": ["--name"],
        "Size": ["--height"],
        "Rare": ["-b", "--breadth"],
        "Own": ["--count"],
        "Options": ["--help"],
    }
