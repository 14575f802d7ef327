"""What a long search has found so far, kept beside its output until that is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import temporary, write_text
from asyncdiff_cli.engine.locks import hold_file
from asyncdiff_cli.engine.reading import Read, read_json, shown

SETTLED_SUFFIX = ".settled"
"""How the name of a journal ends, in place of its output's end."""


class _Kept(Read):
    """The shape of the file."""

    settings: dict[str, JsonValue]
    found: dict[str, JsonValue]


class Journal:
    """A file of what was found, complete or not there, from which the same search goes on.

    Args:
        output: the file that the search is for.
        settings: JSON values that decide about what is found.

    Raises:
        InputError: for a journal that is damaged, or of other settings.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = output.with_suffix(SETTLED_SUFFIX), dict(settings)
        self._found: dict[str, Any] = {}
        if self.path.exists():
            kept = read_json(self.path, _Kept)
            if changed := difference(kept.settings, self.settings):
                raise InputError(
                    f"{self.path} is of a search with other settings, {changed}: finish that,"
                    " delete the file, or give another --out"
                )
            self._found = dict(kept.found)

    def get(self, name: str, default: Any = None) -> Any:
        """What was found under a name."""
        return self._found.get(name, default)

    def keep(self, name: str, value: Any) -> None:
        """Have a JSON value found.

        Raises:
            AsyncDiffError: if it cannot be written.
        """
        self._found[name] = value
        write_text(self.path, json.dumps({"settings": self.settings, "found": self._found}))

    def once(self, name: str, find: Callable[[], Any]) -> Any:
        """What was found under a name, by `find` if it was not yet."""
        if name not in self._found:
            self.keep(name, find())
        return self._found[name]

    def remove(self) -> None:
        """Forget all, now that the output is there."""
        self.path.unlink(missing_ok=True)


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first setting that is not as it was, in words; None if all are."""
    for name in [*now, *(before.keys() - now.keys())]:
        was, is_now = before.get(name), now.get(name)
        if was == is_now:
            continue
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            return difference(was, is_now)
        return f"{name} ({shown(was)}, not {shown(is_now)})"
    return None


@contextmanager
def workplace(output: Path) -> Iterator[Path]:
    """Keep other commands from a file within the block, which makes it.

    Yields:
        A hidden directory beside it that is gone after the block.

    Raises:
        InputError, AsyncDiffError: as `hold_file`.
    """
    with hold_file(output), temporary(output, directory=True) as directory:
        yield directory
