"""The only place that prints: results on stdout; errors, warnings and progress on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning
from asyncdiff_cli.engine.interrupts import OutputClosed
from asyncdiff_cli.engine.messages import is_first, is_leader
from asyncdiff_cli.engine.text import both_ends, visible

if TYPE_CHECKING:
    from rich.console import Console

    from asyncdiff_cli.engine.policies.base import StepState


WIDE = 200
"""Columns where stdout is a file or a pipe, which has no width of its own."""


def replace_what_cannot_be_encoded() -> None:
    """Have characters that a terminal's encoding lacks printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def line(text: str) -> None:
    """A line of the result."""
    _to_stdout(visible(text))


def as_json(value: Mapping[str, Any]) -> None:
    """The one JSON object of `--json`, in ASCII."""
    _to_stdout(json.dumps(value, allow_nan=False))


def _to_stdout(text: str) -> None:
    if sys.stdout is None:
        raise AsyncDiffError("cannot write to stdout: it is closed")
    try:
        print(text, flush=True)
    except OSError as error:
        with contextlib.suppress(OSError):  # or Python tries once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise OutputClosed from None
        raise AsyncDiffError(f"cannot write to stdout: {error.strerror}") from None


def error(text: str) -> None:
    """Why a command failed: one line, of the process that failed first if there are several."""
    if is_first("error"):
        _to_stderr(f"error: {text}")


def warning(text: str) -> None:
    """What a user should know although the command goes on: one line, once for all processes."""
    if is_first(text):
        _to_stderr(f"warning: {text}")


def note(text: str) -> None:
    """A line about what goes on, where stderr is no terminal and so shows no bar."""
    if sys.stderr is not None and not sys.stderr.isatty():
        _to_stderr(text)


def _to_stderr(text: str) -> None:
    if sys.stderr is not None:  # for which print would take stdout
        with contextlib.suppress(OSError):  # the exit code still tells
            print(visible(both_ends(" ".join(text.split()))), file=sys.stderr, flush=True)


def _console(file: IO[str] | None = None) -> Console:
    """A console of rich that prints text as it is, without markup, emoji codes or highlights.

    Args:
        file: what it prints to; default stderr.
    """
    from rich.console import Console

    return Console(file=file, stderr=True, markup=False, emoji=False, highlight=False)


class _Page(io.StringIO):
    """What goes to stdout in one piece: as wide and with the characters that stdout has."""

    @property
    def encoding(self) -> str:  # type: ignore[override] # StringIO has None
        return getattr(sys.stdout, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return sys.stdout is not None and sys.stdout.isatty()


def _print(table: Any) -> None:
    page = _Page()
    console = _console(page)
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)
    _to_stdout(page.getvalue().removesuffix("\n"))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under headings, each as wide as it needs to be."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(*map(visible, columns), box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        shown.add_row(*map(visible, row))
    _print(shown)


def tables(shown: Sequence[Any]) -> None:
    """Tables of rich, one below the other."""
    for table in shown:
        _print(table)


def fields(values: Mapping[str, Any]) -> None:
    """Names and values, aligned; those without a value are left out."""
    shown = {name: value for name, value in values.items() if value not in (None, "")}
    width = max(map(len, shown))
    for name, value in shown.items():
        line(f"{name:<{width}}  {value}")


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values on one line; those without a value are left out."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def size(count: float) -> str:
    """Bytes as people write them."""
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{count / unit:.3g} {name}"


def quiet_imports() -> None:
    """Keep what libraries say while they are imported off the terminal, and show our warnings."""
    import logging
    import warnings

    _heed_ours()
    warnings.showwarning = _once_each()
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    for library in ("bitsandbytes", "torch.utils._pytree", "torchao"):
        logging.getLogger(library).setLevel(logging.ERROR)


def quiet_libraries() -> None:
    """Keep the libraries' warnings and loading bars off the terminal; downloads show theirs."""
    import logging

    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    _heed_ours()  # a library may have set the filters as it was imported
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    logging.getLogger("diffusers.loaders.peft").setLevel(logging.CRITICAL)  # it raises them as well
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def _heed_ours() -> None:
    """Let the engine's warnings through, and no other ones."""
    import warnings

    warnings.simplefilter("ignore")
    warnings.simplefilter("always", AsyncDiffWarning)


def _once_each() -> Callable[..., None]:
    """What prints the engine's warnings, each text once."""
    seen = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if (text := str(message)) not in seen:
            seen.add(text)
            warning(text)

    return show


def _bars() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = _console()
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal and is_leader()),
        transient=True,
    )


class Progress:
    """A bar over images and one over the steps of the batch, where stderr is a terminal."""

    def __init__(self, images: int) -> None:
        self._bars = _bars()
        self._images = self._bars.add_task("images", total=images)
        self._steps = self._bars.add_task("steps", total=None)

    def step(self, state: StepState) -> None:
        """An evaluation is over; after the last one, the images of its batch are."""
        self._bars.update(self._steps, completed=state.index + 1, total=state.num_evaluations)
        if state.index + 1 == state.num_evaluations:
            self._bars.advance(self._images, len(state.latents))


@contextmanager
def progress(images: int) -> Iterator[Progress]:
    """Show the progress over so many images within the block."""
    bars = Progress(images)
    with bars._bars:
        yield bars


@contextmanager
def count(things: str) -> Iterator[Callable[[str, int, int], None]]:
    """Bars over things, one per name: the block calls with the name, how many, and of how many."""
    bars = _bars()
    tasks: dict[str, Any] = {}

    def update(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(visible(f"{things}, {name}"), total=total)
        bars.update(tasks[name], completed=done)

    with bars:
        yield update


@contextmanager
def images(
    total: int, shown: bool = True, things: str = "images"
) -> Iterator[Callable[[int], None]]:
    """A bar over images, or other things: the block calls with how many more there are."""
    bars = _bars()
    bars.disable = bars.disable or not shown
    task = bars.add_task(things, total=total)
    with bars:
        yield lambda count: bars.advance(task, count)


@contextmanager
def status(text: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show what is going on within the block, where stderr is a terminal.

    For a download the block calls with the bytes that are there, and of how many.
    """
    console = _console()
    if not (console.is_terminal and is_leader()):
        yield lambda done, total: None
        return
    with console.status(text) as shown:
        yield lambda done, total: shown.update(
            f"Downloading: {size(done)}" + (f" of {size(total)}" if total else "")
        )


@contextmanager
def training(
    total: int, done: int, is_main: bool, json_lines: bool
) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Show what a training tells: the block calls with the kind of an event and its values.

    One process of a run shows it: with `--json` as an object per event on stdout, on a terminal as
    a live view, and else as a line per event on stderr.
    """
    from rich.live import Live

    from asyncdiff_cli.dashboard import Dashboard, summary

    console = _console()
    dashboard = Dashboard(total, done)

    def show(kind: str, values: Mapping[str, Any]) -> None:
        if not is_main:
            return
        if kind == "warning":
            warning(values["warning"])
        if json_lines:
            as_json({"event": kind, **values})
        elif console.is_terminal:
            live.update(dashboard.updated(kind, values), refresh=True)
        elif kind != "warning":
            _to_stderr(summary(kind, values, total))

    if not console.is_terminal or json_lines or not is_main:
        yield show
        return
    with Live(console=console, auto_refresh=False) as live:
        yield show
