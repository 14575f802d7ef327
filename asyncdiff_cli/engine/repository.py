"""A hub repository at a revision, as command lines and records write it."""

from __future__ import annotations

import re
from typing import NamedTuple

from typing_extensions import Self

from asyncdiff_cli.engine.checks import may_be_repository

REPOSITORY_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")
"""The whole name of a commit, which means the same for ever."""


class Repository(NamedTuple):
    """A repository, and the branch, tag or commit of it; None for its main branch."""

    name: str
    revision: str | None = None

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The repository that `OWNER/NAME[@REVISION]` can be; None for any other text.

        Example:
            >>> Repository.read("alice/flux-tpm@v2")
            Repository(name='alice/flux-tpm', revision='v2')
        """
        name, at, revision = text.partition("@")
        named = may_be_repository(name) and REPOSITORY_NAME.fullmatch(name)
        if not named or (at and not revision):
            return None
        return cls(name, revision or None)

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def is_pinned(source: str | None) -> bool:
    """Whether the place of something is a repository at a commit, and so never another thing."""
    repository = None if source is None else Repository.read(source)
    return repository is not None and COMMIT.fullmatch(repository.revision or "") is not None
