"""The words that `mini` knows, and which of a prompt's it does not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from asyncdiff_cli.engine.reading import Read, read_json

FILE = "vocabulary.json"
WORD = re.compile(r"\w[\w'-]*")
WORDS_SHOWN = 8
"""Words that a warning names."""


class Vocabulary(Read):
    """`objects` maps each thing to its other names; a name may be several words."""

    objects: dict[str, list[str]]
    colours: list[str]
    words: list[str]
    colourable: list[str] = Field([])
    """Things that can be asked for in a colour."""

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

    def unknown(self, prompts: Iterable[str]) -> list[str]:
        """Each word of the prompts that is not known, once."""
        known = {*self.names, *(word.lower() for word in self.words)}
        longest_first = map(re.escape, sorted(known, key=len, reverse=True))
        phrases = re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)")
        rest = (phrases.sub(" ", prompt.lower()) for prompt in prompts)
        return list(dict.fromkeys(word for text in rest for word in WORD.findall(text)))

    def nearest(self, word: str) -> list[str]:
        """Names that are much like a word, two at most."""
        return difflib.get_close_matches(word, self.names, n=2)

    def warning(self, name: str, prompts: Iterable[str]) -> str | None:
        """One line about the words that the backbone `name` does not know, if there are any."""
        unknown = self.unknown(prompts)
        if not unknown:
            return None
        nearest = {word: ", ".join(self.nearest(word)) for word in unknown[:WORDS_SHOWN]}
        words = [f"{w!r} (nearest: {near})" if near else repr(w) for w, near in nearest.items()]
        more = (
            f" and {len(unknown) - WORDS_SHOWN:,} more words" if len(unknown) > WORDS_SHOWN else ""
        )
        return (
            f"{name} does not know {', '.join(words)}{more}; `asyncdiff backbones {name}` lists its"
            " words"
        )
