"""The words that `mini` knows, and which of a prompt's it does not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from asyncdiff_cli.engine.reading import Read, read_json

FILE = "vocabulary.json"


class Vocabulary(Read):
    """`objects` maps each thing to its other names; a name may be several words."""

    objects: dict[str, list[str]]
    colours: list[str]
    words: list[str]

    @classmethod
    def load(cls, directory: Path | None) -> Vocabulary | None:
        """The vocabulary of a pipeline directory; None for a model without one.

        Raises:
            InputError: for a file that is not a vocabulary.
        """
        if directory is None or not (directory / FILE).is_file():
            return None
        return read_json(directory / FILE, cls)

    @property
    def names(self) -> list[str]:
        """What a prompt may be about: objects, their other names, and colours; lower case."""
        others = [name for names in self.objects.values() for name in names]
        return [name.lower() for name in (*self.objects, *others, *self.colours)]

    def unknown(self, prompts: Iterable[str]) -> dict[str, list[str]]:
        """Each word of the prompts that is not known, with the nearest known ones."""
        names = self.names
        known = sorted({*names, *(word.lower() for word in self.words)}, key=len, reverse=True)
        phrases = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, known))})(?!\w)")
        found: dict[str, list[str]] = {}
        for prompt in prompts:
            for word in re.findall(r"\w[\w'-]*", phrases.sub(" ", prompt.lower())):
                found[word] = difflib.get_close_matches(word, names, n=2)
        return found

    def warning(self, name: str, prompts: Iterable[str]) -> str | None:
        """One line about the words that the backbone `name` does not know, if there are any."""
        unknown = self.unknown(prompts)
        if not unknown:
            return None
        words = [
            f"{word!r} (nearest: {', '.join(near)})" if near else repr(word)
            for word, near in unknown.items()
        ]
        return (
            f"{name} does not know {', '.join(words)}; `asyncdiff backbones {name}` lists its words"
        )
