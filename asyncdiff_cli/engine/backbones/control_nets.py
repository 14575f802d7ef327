"""Control nets: which family has them, and where one is, before its weights are read."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field

from asyncdiff_cli.engine.backbones.fingerprint import fingerprint
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.reading import Read, read_json
from asyncdiff_cli.engine.repository import Repository

NET_CONFIG = "config.json"
CONTROL_NETS = {
    "sd3": "SD3ControlNetModel",
    "flux": "FluxControlNetModel",
    "qwen-image": "QwenImageControlNetModel",
}
"""The families that take a control net, and its class in diffusers."""


class NetConfig(Read):
    """The configuration of a control net, as far as it is looked at."""

    class_name: Annotated[str, Field(alias="_class_name")]
    num_attention_heads: int | None = None
    attention_head_dim: int | None = None


@dataclass(frozen=True)
class ControlNet:
    """A control net that is yet to be loaded."""

    place: str
    """A directory from anywhere, or a repository at a commit."""
    class_name: str
    folder: Path
    """The directory, or that of what is downloaded."""

    @property
    def location(self) -> str:
        """A directory or repository, as `from_pretrained` takes it."""
        repository = Repository.read(self.place)
        return repository.name if repository else self.place

    @property
    def revision(self) -> str | None:
        """The commit of the repository, if it is one."""
        repository = Repository.read(self.place)
        return repository and repository.revision

    @cached_property
    def fingerprint(self) -> str | None:
        """SHA-256 over the names and bytes of its files, if it is a directory."""
        return None if self.revision else fingerprint(self.folder, None, ())

    @property
    def config(self) -> NetConfig:
        return read_json(self.folder / NET_CONFIG, NetConfig)


def check_control_net(place: str, family: str | None) -> None:
    """A control net is on the disk, of the class of a family, or may be a repository.

    Args:
        family: None for one that is not known.

    Raises:
        InputError: for a family that has none, or what is no net of it.
    """
    class_name = None if family is None else _class_of(family)
    path = expanded(place)
    if path.is_dir():
        _check_class(path, class_name)
    elif path.exists() or Repository.read(place) is None:
        raise InputError(
            f"--controlnet {place} is neither a directory nor a repository, OWNER/NAME[@REVISION]"
        )


def find_control_net(place: str, family: str) -> ControlNet:
    """Look a control net up; of a repository, download its configuration.

    Raises:
        InputError: as `check_control_net`.
        AsyncDiffError: if the repository is gated or cannot be reached.
    """
    check_control_net(place, family)
    class_name, path = _class_of(family), expanded(place)
    if (repository := None if path.is_dir() else Repository.read(place)) is None:
        return ControlNet(str(path.absolute()), class_name, path)
    from asyncdiff_cli.engine.hub import fetch_files

    with net_errors(repository.name):
        folder = fetch_files(repository, NET_CONFIG)
    _check_class(folder, class_name)
    return ControlNet(str(Repository(repository.name, folder.name)), class_name, folder)


def net_errors(repo: str) -> AbstractContextManager[None]:
    """The hub's errors about a control net, as the project's."""
    from asyncdiff_cli.engine.hub import hub_errors

    lacking = f"is no control net of diffusers: it has no {NET_CONFIG}"
    return hub_errors(repo, "--controlnet DIR", "without --controlnet none is needed", lacking)


def _class_of(family: str) -> str:
    if family not in CONTROL_NETS:
        raise InputError(
            f"a model of {family} takes no control net: leave out --controlnet, or use one of"
            f" {', '.join(CONTROL_NETS)}"
        )
    return CONTROL_NETS[family]


def _check_class(folder: Path, class_name: str | None) -> None:
    if not (folder / NET_CONFIG).is_file():
        raise InputError(f"{folder} is no control net of diffusers: it has no {NET_CONFIG}")
    found = read_json(folder / NET_CONFIG, NetConfig).class_name
    if found not in CONTROL_NETS.values() or class_name not in (None, found):
        raise InputError(
            f"{folder} holds a {found}: --controlnet is to be a"
            f" {class_name or ' or '.join(CONTROL_NETS.values())} here"
        )
