"""The command line: its commands, and the boundary where an error becomes one line."""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any

import typer

import asyncdiff_cli
from asyncdiff_cli import render
from asyncdiff_cli.commands.backbones import backbones
from asyncdiff_cli.commands.calibrate import calibrate
from asyncdiff_cli.commands.command import Call, Command
from asyncdiff_cli.commands.distill import distill
from asyncdiff_cli.commands.doctor import doctor
from asyncdiff_cli.commands.evaluate import evaluate
from asyncdiff_cli.commands.explain import explain
from asyncdiff_cli.commands.export import export
from asyncdiff_cli.commands.groups import ungrouped
from asyncdiff_cli.commands.histogram import histogram
from asyncdiff_cli.commands.import_scores import import_scores
from asyncdiff_cli.commands.inspect import inspect
from asyncdiff_cli.commands.merge import merge
from asyncdiff_cli.commands.panel import panel
from asyncdiff_cli.commands.push import push
from asyncdiff_cli.commands.recipes import recipes
from asyncdiff_cli.commands.report import report
from asyncdiff_cli.commands.sample import sample
from asyncdiff_cli.commands.score import score
from asyncdiff_cli.commands.spectrum import spectrum
from asyncdiff_cli.commands.sweep import sweep
from asyncdiff_cli.commands.train import train
from asyncdiff_cli.commands.ui import ui
from asyncdiff_cli.engine.errors import in_words
from asyncdiff_cli.engine.interrupts import OutputClosed, as_interrupts, exit_code

DEBUG = "ASYNCDIFF_DEBUG"
BEGIN = """
Begin with:
  asyncdiff doctor                       whether all is there
  asyncdiff sample "a fox" --compare 0,1
                                         a picture by the stock sampler, and beside it ours
  asyncdiff ui                           the same on a page, with the schedule to drag
"""

app = typer.Typer(
    help="Asynchronous timestep conditioning for text-to-image flow models.",
    invoke_without_command=True,
    rich_markup_mode=None,  # plain help is there in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands: dict[str, Callable[..., None]] = {
    "sample": sample,
    "train": train,
    "eval": evaluate,
    "sweep": sweep,
    "histogram": histogram,
    "panel": panel,
    "report": report,
    "merge": merge,
    "export": export,
    "import-scores": import_scores,
    "score": score,
    "explain": explain,
    "ui": ui,
    "calibrate": calibrate,
    "distill": distill,
    "spectrum": spectrum,
    "push": push,
    "backbones": backbones,
    "inspect": inspect,
    "doctor": doctor,
}
for name, command in commands.items():
    app.command(name, cls=Command)(ungrouped(command))
app.add_typer(recipes, name="recipes")


def _version(value: bool) -> None:
    if value:
        render.line(f"asyncdiff {asyncdiff_cli.__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar=DEBUG, help="Show the traceback of an error.")
    ] = False,
) -> None:
    context.obj.debug = debug
    if context.invoked_subcommand is None:
        render.line(context.get_help())
        render.line(BEGIN.rstrip())


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code.

    0 for success, 1 for a failure, 2 for bad input, 130 or 143 if a signal ended it, 141 if its
    output is read no more. An error is one line on stderr, or its traceback with `--debug`.
    """
    call = Call(sys.argv[1:] if args is None else list(args))
    render.quiet_imports()
    render.replace_what_cannot_be_encoded()
    try:
        with as_interrupts():
            code = _group()(call.arguments, prog_name="asyncdiff", standalone_mode=False, obj=call)
    except (KeyboardInterrupt, OutputClosed) as interrupt:
        return exit_code(interrupt)
    except typer.Abort as abort:  # which typer makes of an EOFError, as of Ctrl-D
        return _failed(abort.__cause__ if isinstance(abort.__cause__, EOFError) else abort, call)
    except Exception as error:
        return _failed(error, call)
    return code if isinstance(code, int) else 0


@cache
def _group() -> Any:
    """All commands, of which making the options takes longer than a short one of them."""
    return typer.main.get_command(app)


def _failed(error: Exception, call: Call) -> int:
    """Say why a command line failed; its exit code."""
    if usage := getattr(error, "format_message", None):  # click's, or typer's copy of it
        path = getattr(getattr(error, "ctx", None), "command_path", "asyncdiff")
        render.error(f"{usage()} (see {path} --help)")
        return getattr(error, "exit_code", 2)
    if call.debug:
        raise error
    reason = in_words(error)
    render.error(str(reason))
    return reason.exit_code
