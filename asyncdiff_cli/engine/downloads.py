"""Fetch a file over HTTP once: resumed where it broke off, checked, and complete or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.hashes import sha256_of_files
from asyncdiff_cli.engine.text import one_line

CHUNK_BYTES = 2**20
TIMEOUT = 30
"""Seconds without an answer, not for the whole file."""
INSTEAD = "pass --prompts PATH, or a --data-dir that holds it"

OnProgress = Callable[[int, "int | None"], None]
"""Called with the bytes that are there, and of how many; None if the server does not say."""


def data_home(data_dir: Path | None) -> Path:
    """The directory that downloads are kept in, default `$XDG_CACHE_HOME/asyncdiff`."""
    return expanded(data_dir or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "asyncdiff")


def download(
    url: str, target: Path, sha256: str | None = None, on_progress: OnProgress | None = None
) -> Path:
    """Fetch `url` into `target`, unless that is there already.

    What has arrived of a download that fails stays in `<target>.part`, and the next call goes on
    from there.

    Args:
        sha256: what the file must hash to, in hexadecimal; also one that is there already.

    Raises:
        AsyncDiffError: if it cannot be fetched or written, or is another file.
    """
    if target.is_file():
        if sha256 and (found := file_sha256(target)) != sha256:
            raise AsyncDiffError(
                f"{target} has SHA-256 {found}, expected {sha256}: delete it to download it again"
            )
        return target
    part = target.with_suffix(target.suffix + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, on_progress)
        if sha256 and (found := file_sha256(part)) != sha256:
            part.unlink()  # going on from a wrong file would never end well
            raise AsyncDiffError(
                f"{target.name} from {url} has SHA-256 {found}, expected {sha256}: try again, or"
                f" {INSTEAD}"
            )
        os.replace(part, target)
    except (OSError, HTTPException) as error:
        raise AsyncDiffError(
            f"cannot download {url} to {target}: {_reason(error)}; {INSTEAD}"
        ) from None
    return target


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    return sha256_of_files([("", path)])


def _fetch(url: str, part: Path, on_progress: OnProgress | None) -> None:
    """Complete `part`; raises OSError if it is shorter than the server says."""
    done = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or not done:
            raise
        error.close()
        # nothing follows the part: it is the whole file, or not a part of this file at all
        if error.headers["Content-Range"] != f"bytes */{done}":
            part.unlink()
            _fetch(url, part, on_progress)
        return
    with response:
        if response.status != 206:
            done = 0
        length = response.headers["Content-Length"]
        total = done + int(length) if length else None
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                if on_progress:
                    on_progress(done, total)
    # a connection that closes early reads like the end of the file
    if total is not None and done != total:
        raise OSError(f"it broke off after {done:,} of {total:,} bytes: try again to go on")


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}".strip()
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        error = error.reason
    return getattr(error, "strerror", None) or one_line(error) or type(error).__name__
