"""Make the tables and pictures of the documents again that depend on mini's weights.

    python -m benchmarks.readme [--limit N] [FILE…]

The documents say how, in comments, a command a line:

    <!-- remake
    asyncdiff eval --limit 96 --out build/readme/eval
    copy build/readme/eval/0003.png docs/cat.png
    show build/readme/eval/table.md 1
    -->
    What `show` puts here, a paragraph of the file by its place, or what `python -m …` prints.
    <!-- end -->

`asyncdiff` runs in this process, and where it stops so does this. Commands go on with what an
earlier call has drawn into build/readme: delete that after the weights have changed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli import app, render
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import write_text

DOCUMENTS = ("README.md", "docs/results.md", "docs/rewards.md", "docs/theory.md")
COMMENT = re.compile(
    r"<!-- remake\n(?P<lines>.*?)\n-->\n(?:(?P<shown>((?!<!--).)*)<!-- end -->)?", re.DOTALL
)
LIMIT = re.compile(r"--limit \d+")


def remake(text: str, limit: int | None = None) -> str:
    """A document with what its comments make in the place of what is there.

    Args:
        limit: of the commands that have one, in its place: few, to see that all of it runs.

    Raises:
        InputError: for a line that is no command, or a `show` without its end.
        AsyncDiffError: if a command fails.
    """
    return COMMENT.sub(lambda found: _remade(found, limit), text)


def _remade(found: re.Match[str], limit: int | None) -> str:
    shown: list[str] = []
    for line in found["lines"].splitlines():
        print(f"$ {line}", flush=True)
        words = shlex.split(LIMIT.sub(f"--limit {limit}", line) if limit else line)
        printed = _run(words)
        shown += [] if printed is None else [printed.strip()]
    head = f"<!-- remake\n{found['lines']}\n-->\n"
    if shown and found["shown"] is None:
        raise InputError(f"{found['lines']!r} shows something, and has no <!-- end -->")
    return head + "".join(f"{text}\n" for text in shown) + ("<!-- end -->" if shown else "")


def _run(words: Sequence[str]) -> str | None:
    """Run a command; what it has to show, if that is something."""
    name, *given = words
    if name == "show":
        return Path(given[0]).read_text().split("\n\n")[int(given[1])]
    if name == "copy":
        Path(given[1]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(*given)
        return None
    if name == "python":
        return subprocess.run([sys.executable, *given], check=True, text=True, stdout=-1).stdout
    if name != "asyncdiff":
        raise InputError(f"{shlex.join(words)!r} is not asyncdiff, python, copy or show")
    if code := app.run(list(given)):
        raise AsyncDiffError(f"{shlex.join(words)} ended with {code}")
    return None


def main(
    documents: Annotated[list[Path] | None, typer.Argument(metavar="FILE…")] = None,
    limit: Annotated[
        int | None, typer.Option(min=3, help="Prompts of each evaluation; default as written.")
    ] = None,
) -> None:
    """Make what depends on mini's weights again, in the root of a checkout."""
    for path in documents or map(Path, DOCUMENTS):
        try:
            write_text(path, remake(path.read_text(), limit))
        except AsyncDiffError as error:
            render.error(f"{path}: {error}")
            raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
