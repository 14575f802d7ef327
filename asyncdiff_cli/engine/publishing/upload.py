"""One commit on the hub, which takes the place of nothing unless it is asked to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.hashes import sha256_of_files
from asyncdiff_cli.engine.hub import is_reachable
from asyncdiff_cli.engine.policies.modules import LIBRARY
from asyncdiff_cli.engine.publishing.destination import Destination
from asyncdiff_cli.engine.publishing.material import CARD, FILES, Material
from asyncdiff_cli.engine.text import first_few, one_line

UNREACHED: tuple[Any, ...] = (HfHubHTTPError.__bases__[0], OSError, RuntimeError)
"""What is raised without an answer: by the HTTP client, which differs by version, and by hf_xet."""
LOG_IN = "`hf auth login` with a token that may write, or set HF_TOKEN"


@dataclass(frozen=True)
class Remote:
    """A repository as it is before a push."""

    commit: str
    files: Mapping[str, RepoSibling]
    """The files by their names, without the hub's own."""
    is_ours: bool
    """Whether its card says that this software reads it."""
    is_public: bool
    has_branch: bool
    """Whether the branch that is pushed to is there, and not only the main one."""


@dataclass(frozen=True)
class Pushed:
    """What is on the hub after a push."""

    commit: str
    """The commit that has it."""
    url: str
    """The page of the commit, or of the pull request."""
    changed: bool
    """Whether there was anything new."""


def look_up(destination: Destination, material: Material) -> Remote | None:
    """What is in the repository, asked before there is a card; None where there is none yet.

    Raises:
        InputError: for a repository of something else, or one that cannot take it as asked for.
        AsyncDiffError: without a token, or if the hub does not answer.
    """
    if get_token() is None:
        raise AsyncDiffError(f"there is no token of the hub: {LOG_IN}")
    if constants.HF_HUB_OFFLINE or not is_reachable():
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "it does not answer"
        raise AsyncDiffError(
            f"{constants.ENDPOINT} cannot be asked, {why}: connect, or see with --dry-run what"
            " would go up"
        )
    with _refusals(destination):
        remote = _look_up(destination)
    if remote is None and destination.proposes:
        raise InputError(
            f"there is no repository {destination.repository} to open a pull request in, or it is"
            " private: leave --create-pr out"
        )
    if remote is not None:
        _check_kind(destination, remote, material)
    return remote


def _look_up(destination: Destination) -> Remote | None:
    """The repository at its branch; at its main one where that branch is not there yet."""
    try:
        try:
            return _remote(destination, destination.branch)
        except RevisionNotFoundError:
            return _remote(destination, None)
    except RepositoryNotFoundError:
        return None


def _remote(destination: Destination, revision: str | None) -> Remote:
    info = HfApi().model_info(destination.repository, revision=revision, files_metadata=True)
    card, files = info.card_data, {own.rfilename: own for own in info.siblings or ()}
    files.pop(".gitattributes", None)
    return Remote(
        str(info.sha),
        files,
        is_ours=card is not None and card.get("library_name") == LIBRARY,
        is_public=info.private is False,
        has_branch=revision == destination.branch,
    )


def _check_kind(destination: Destination, remote: Remote, material: Material) -> None:
    """A repository is empty, or of the same kind. Raises: InputError if it is not."""
    name, there = destination.repository, set(remote.files)
    if destination.private and remote.is_public:
        raise InputError(
            f"{name} is public, and --private is for a new one: name another, or make that one"
            f" private at {constants.ENDPOINT}/{name}/settings"
        )
    others = {file for kind, files in FILES.items() if kind is not type(material) for file in files}
    foreign = there & (others - {*FILES[type(material)]})
    if there and (foreign or not remote.is_ours) and not destination.proposes:
        held = sorted(foreign) or sorted(there)
        raise InputError(
            f"{name} holds something else ({first_few(held)}): name another repository, or let"
            " --create-pr propose it"
        )


def upload(
    files: Sequence[Path], destination: Destination, remote: Remote | None, summary: str
) -> Pushed:
    """Commit files to a repository, which is made if there is none.

    Args:
        remote: what `look_up` has found; what has changed since then is not overwritten.
        summary: the first line of the commit's message.

    Raises:
        InputError: for files that would be replaced, or metadata that the hub does not take.
        AsyncDiffError: for what the hub refuses, or if it does not answer.
    """
    name, changed = destination.repository, list(files)
    if remote is not None:
        changed = _check_changed(files, destination, remote)
        if not changed and remote.has_branch:
            page = f"{constants.ENDPOINT}/{name}/commit/{remote.commit}"
            return Pushed(remote.commit, page, False)
    api = HfApi()
    with _refusals(destination):
        if remote is None:
            for card in (file for file in files if file.name == CARD):
                ModelCard.load(card).validate()  # else an empty repository would be left
            api.create_repo(name, private=destination.private or None)
        if destination.branch is not None:
            api.create_branch(name, branch=destination.branch, exist_ok=True)
        made = api.create_commit(
            name,
            [CommitOperationAdd(file.name, file) for file in changed],
            commit_message=summary,
            revision=destination.branch,
            create_pr=destination.proposes,
            parent_commit=None if remote is None else remote.commit,
        )
    return Pushed(made.oid, made.pr_url or made.commit_url, True)


def _check_changed(files: Sequence[Path], destination: Destination, remote: Remote) -> list[Path]:
    """The files that are new or other than in a repository.

    Raises:
        InputError: if any would be replaced, and that was not asked for.
    """
    changed = [file for file in files if not _is_there(file, remote.files.get(file.name))]
    replaced = [file.name for file in changed if file.name in remote.files]
    allowed = destination.replaces or destination.proposes or not remote.has_branch
    if replaced and not allowed:
        raise InputError(
            f"{destination.repository} has another {first_few(replaced)}: give --replace to"
            " overwrite it, --create-pr to propose yours, or another name"
        )
    return changed


def _is_there(file: Path, sibling: RepoSibling | None) -> bool:
    """Whether a repository has a file, by the hash that it is known by there."""
    if sibling is None:
        return False
    if sibling.lfs is not None:
        return sha256_of_files([("", file)]) == sibling.lfs.sha256
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == sibling.blob_id


@contextmanager
def _refusals(destination: Destination) -> Iterator[None]:
    """Turn what the hub refuses within the block into one line that says what to do next."""
    name = destination.repository
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == HTTPStatus.UNAUTHORIZED:
            raise AsyncDiffError(f"the hub does not take this token: {LOG_IN}") from None
        if status == HTTPStatus.FORBIDDEN:
            raise AsyncDiffError(
                f"this token may not write to {name}: {LOG_IN}; or name a repository of your own,"
                " `hf auth whoami` says who you are"
            ) from None
        if status == HTTPStatus.PRECONDITION_FAILED:
            raise AsyncDiffError(f"{name} has changed meanwhile: push again") from None
        raise AsyncDiffError(f"{name} could not be pushed to: {one_line(error)}") from None
    except JSONDecodeError:
        raise AsyncDiffError(
            f"{constants.ENDPOINT} does not answer as the hub does: look at HF_ENDPOINT, and at"
            " the proxy of your network"
        ) from None
    except ValueError as error:  # of the card's metadata, which the hub looks at first
        raise InputError(f"the hub does not take the card: {one_line(error)}") from None
    except UNREACHED as error:
        raise AsyncDiffError(
            f"{name} could not be pushed to ({one_line(error)}): connect, and push again"
        ) from None
