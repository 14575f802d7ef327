"""Where something is published, as a user asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.repository import COMMIT, Repository


@dataclass(frozen=True)
class Destination:
    """A repository of the hub, and how what is there is treated.

    Raises:
        InputError: for what is no name of a repository, or no branch.
    """

    repository: str
    """USER/NAME."""
    private: bool = False
    """Whether a new one is seen by its owner alone."""
    branch: str | None = None
    """None for the main one."""
    proposes: bool = False
    """Whether it is a pull request, which changes nothing until it is merged."""
    replaces: bool = False
    """Whether files of the same names are replaced."""

    def __post_init__(self) -> None:
        if not _is_name(self.repository):
            raise InputError(
                f"{self.repository!r} does not name a repository: write USER/NAME, such as"
                " alice/flux-tpm"
            )
        if self.branch is not None and (
            self.branch.startswith("refs/") or COMMIT.fullmatch(self.branch)
        ):
            raise InputError(f"--revision is a branch to push to, not {self.branch}")
        if self.proposes and self.replaces:
            raise InputError("--create-pr replaces nothing: leave --replace out")


def _is_name(text: str) -> bool:
    """Whether a repository with an owner can have this name."""
    if Repository.read(text) != (text, None):
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def dry_folder(destination: Destination, dry: bool, out: Path | None) -> Path | None:
    """The folder that a dry run writes; None for a push, which writes none.

    Raises:
        InputError: for a folder of a push.
    """
    if dry:
        return out or Path("cards") / destination.repository.rpartition("/")[2]
    if out is not None:
        raise InputError("--out is where a dry run writes: give --dry-run too")
    return None
