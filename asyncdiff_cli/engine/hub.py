"""What the Hugging Face Hub can refuse, each as one line that says what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def hub_errors(repo: str, local: str, embedded: str, lacking: str) -> Iterator[None]:
    """Turn the hub's errors within the block into the project's.

    Args:
        repo: the repository that is asked for.
        local: the option that takes files which are on the disk.
        embedded: what to use that needs no download.
        lacking: what is wrong with a repository that does not have the file.
    """
    try:
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


def one_line(error: Exception) -> str:
    """An error's message without its line breaks, and not all of a long one."""
    return " ".join(str(error).split())[:300]
