"""Where a timestep prediction module is and what it is, told without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import AfterValidator, Field

from asyncdiff_cli.engine.backbones.registry import BASELINE, REGISTRY, BackboneEntry
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.limits import MAX_CHANNELS, MAX_LAYERS, MAX_PATCH, MAX_TOKENS, MAX_WIDTH
from asyncdiff_cli.engine.policies.actions import DEVIATION, check_actions
from asyncdiff_cli.engine.reading import Read, read_json
from asyncdiff_cli.engine.repository import Repository

LEARNED, LIFTED, JOINT = "learned", "lifted", "joint"
MODULES = (LEARNED, LIFTED, JOINT)
"""The policies that draw with a module: with the bound 0.5 as the paper's, with the bound 1, and of
one that decides more than the deviation. A backbone may ship one for each."""
LIBRARY = "asyncdiff"
"""How a card names the software that reads what it describes."""
TAGS = (LIBRARY, "flow-matching", "text-to-image")
MODULE_FILES = "model.safetensors", "config.json"
"""The files that a module is loaded from."""
SOME_DEVIATION = "fixed:0.5"
"""What is compared where a backbone has neither a module nor a policy that deviates."""
Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]


class ModuleConfig(Read):
    """A module's config.json: what the module is called with, all of it.

    The weights would load with another number of heads or bound too, and decide differently.
    """

    latent_channels: Channels
    prompt_channels: Channels
    pooled_channels: Channels
    bound: Annotated[float, Field(gt=0, le=1)]
    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)]
    layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    heads: Annotated[int, Field(ge=1, le=MAX_WIDTH)]
    patch_size: Annotated[int, Field(ge=1, le=MAX_PATCH)]
    text_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    global_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    actions: Annotated[tuple[str, ...], AfterValidator(check_actions)] = (DEVIATION,)
    """Older files do not say it."""


class Deciding(Protocol):
    """What is known of how a module decides."""

    @property
    def bound(self) -> float:
        """The largest deviation."""

    @property
    def actions(self) -> tuple[str, ...]:
        """What it decides."""


def find_module(source: str) -> Path | Repository:
    """The directory of a module, or the hub repository that it may be in, which is not asked.

    Args:
        source: the name of a backbone that ships one, with ":lifted" or ":joint" behind it for
            that of another policy than learned; a directory or a repository, OWNER/NAME[@REVISION].

    Raises:
        InputError: for a backbone that ships none, or a directory that is not there or holds none.
    """
    own = shipped(source)
    if backbone_of(source) is not None and own is None:
        raise InputError(f"no module is shipped for {source}: train one with `asyncdiff train`")
    path = own or expanded(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{path} holds no timestep prediction module: it has no config.json")
        return path
    repository = Repository.read(source)
    if path.exists() or repository is None:
        raise InputError(f"there is no directory {source} with a timestep prediction module")
    return repository


def read_config(source: str | Path, directory: Path) -> ModuleConfig:
    """The configuration of a module.

    Args:
        source: what a user calls it.

    Raises:
        AsyncDiffError: if it is damaged.
    """
    try:
        return read_json(directory / "config.json", ModuleConfig)
    except InputError as error:
        raise AsyncDiffError(f"the module in {source} is incomplete or damaged ({error})") from None


def check_is_schedule(source: str | Path, actions: Sequence[str]) -> None:
    """A module decides deviations and nothing else, as a schedule of them can.

    Raises:
        InputError: for one that decides more.
    """
    if tuple(actions) != (DEVIATION,):
        raise InputError(
            f"the module in {source} decides {' and '.join(actions)}, and a schedule has deviations"
            " alone: draw with the module itself"
        )


def check_module(source: str) -> ModuleConfig | None:
    """The configuration of a module that is on this machine; None for one that may be on the hub.

    Raises:
        InputError, AsyncDiffError: as `find_module` and `read_config`.
    """
    found = find_module(source)
    return None if isinstance(found, Repository) else read_config(source, found)


def shipped(source: str) -> Path | None:
    """The directory of the module that a backbone ships; None for any other source."""
    name = backbone_of(source)
    policy = source.partition(":")[2] or LEARNED
    return None if name is None else REGISTRY[name].modules.get(policy)


def backbone_of(source: str) -> str | None:
    """The backbone whose own module is meant; None for a directory or a repository."""
    name = source.partition(":")[0]
    named = (shipped_source(name, policy) for policy in MODULES)
    return name if name in REGISTRY and source in named else None


def shipped_source(name: str, policy: str) -> str:
    """What a backbone's own module for a policy is called, as `find_module` takes it."""
    return name if policy == LEARNED else f"{name}:{policy}"


def module_policy(bound: float, actions: Sequence[str]) -> str:
    """The policy that a module of this kind is drawn with."""
    if len(actions) > 1:
        return JOINT
    return LEARNED if bound == 0.5 else LIFTED


def check_suits(policy: str, source: str | Path | None, module: Deciding) -> None:
    """A module is one that a policy draws with.

    Raises:
        InputError: for a lifted one with another bound than 1, or a joint one that decides
            nothing but deviations.
    """
    if policy == LIFTED and module.bound != 1:
        raise InputError(
            f"the module in {source} has the bound {module.bound:g}, and a lifted one has 1: name"
            f" it learned:{source}"
        )
    if policy == JOINT and len(module.actions) == 1:
        raise InputError(
            f"the module in {source} decides {module.actions[0]} alone, and a joint one more: name"
            f" it learned:{source}"
        )


def own_policy(entry: BackboneEntry) -> str:
    """The policy that a backbone is drawn with, or some deviation where that is synchronous."""
    return SOME_DEVIATION if entry.policy == BASELINE else entry.policy


def main_policy(entry: BackboneEntry) -> str:
    """The policy that a backbone's tables and figures are about: its module's, if it ships one."""
    return LEARNED if LEARNED in entry.modules else own_policy(entry)
