"""What the Hugging Face Hub can refuse, each as one line that says what to do next."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path

from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.repository import Repository
from asyncdiff_cli.engine.text import one_line


def is_cached(repo: str, revision: str | None = None) -> bool:
    """Whether the cache of the hub has a repository, at a revision."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(repo, revision=revision, local_files_only=True)
    except Exception:  # for what is no repository's name it raises errors of several classes
        return False
    return True


def fetch_files(repository: Repository, *names: str) -> Path:
    """Download files of a repository, all of one commit.

    Returns:
        The directory that they are in, whose name is the commit's.

    Raises:
        What `huggingface_hub` raises where one cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    revision = repository.revision
    for name in names:
        file = Path(hf_hub_download(repository.name, name, revision=revision))
        revision = file.parent.name  # what a branch names may move between two files
    return file.parent


PATIENCE = 4.0
"""Seconds that the hub gets to answer at all, before local files have to do."""
REMEMBERED = 600.0
"""Seconds for which an answer, or none, holds: a command, and not a notebook's whole day."""


@contextmanager
def hub_errors(repo: str, local: str, embedded: str, lacking: str) -> Iterator[None]:
    """Turn the hub's errors within the block into the project's.

    If the hub does not answer, the block has local files only: each of its libraries would ask
    again for every file, and wait between.

    Args:
        repo: the repository that is asked for.
        local: the option that takes files which are on the disk.
        embedded: what to use that needs no download.
        lacking: what is wrong with a repository that does not have the file.
    """
    try:
        with nullcontext() if os.path.isdir(repo) else local_if_unreachable():
            yield
    except GatedRepoError:
        raise AsyncDiffError(
            f"{repo} is gated: accept its licence at https://huggingface.co/{repo}, then run"
            f" `hf auth login`, or pass {local} if you have the files; {embedded}"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{repo} has no such revision; see its list of commits") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"there is no repository {repo}, or it is private: check the name, or `hf auth login`"
        ) from None
    except HFValidationError:
        raise InputError(f"{repo!r} is neither a directory nor the name of a repository") from None
    except LocalEntryNotFoundError:
        raise AsyncDiffError(
            f"{repo} is not downloaded and cannot be reached: connect, or pass {local}; {embedded}"
        ) from None
    except EntryNotFoundError:
        raise InputError(f"{repo} {lacking}") from None
    except HfHubHTTPError as error:
        raise AsyncDiffError(f"{repo} could not be downloaded: {one_line(error)}") from None


@contextmanager
def local_if_unreachable() -> Iterator[None]:
    """Keep the libraries to local files within the block, if the hub does not answer."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not is_reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_reachable() -> bool:
    """Whether the hub answers, with whatever; it is asked once."""
    return _answers(constants.ENDPOINT, int(time.monotonic() / REMEMBERED))


@lru_cache(maxsize=1)
def _answers(endpoint: str, period: int) -> bool:
    answered = threading.Event()

    def ask() -> None:
        with suppress(Exception):  # its HTTP client, and what that raises, differs by version
            get_session().head(endpoint, timeout=PATIENCE)
            answered.set()

    # in a thread, because no timeout of a client covers the look-up of a name
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return answered.is_set()
