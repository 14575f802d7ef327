"""Where a timestep prediction module is, told without torch."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.checks import may_be_repository
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded

LIFTED = ":lifted"


def find_module(source: str) -> Path | None:
    """The directory of a module; None for what may be a hub repository, which is not asked.

    Args:
        source: the name of a backbone that ships one, with ":lifted" for the lifted one; a
            directory or a repository.

    Raises:
        InputError: for a backbone that ships none, or a directory that is not there or holds none.
    """
    entry = REGISTRY.get(source.removesuffix(LIFTED))
    shipped = entry and (entry.lifted if source.endswith(LIFTED) else entry.tpm)
    if entry is not None and shipped is None:
        raise InputError(f"no module is shipped for {source}: train one with `asyncdiff train`")
    path = shipped or expanded(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{path} holds no timestep prediction module: it has no config.json")
        return path
    if path.exists() or not may_be_repository(source):
        raise InputError(f"there is no directory {source} with a timestep prediction module")
    return None
