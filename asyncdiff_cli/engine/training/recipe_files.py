"""Recipes as files: read with what they extend and what overrides them, listed and written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    ValidationError,
)

from asyncdiff_cli.engine import reading, yaml12
from asyncdiff_cli.engine.checks import check_choice, unknown
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded, write_text
from asyncdiff_cli.engine.reading import SHOWN, read_text, shown
from asyncdiff_cli.engine.text import one_line
from asyncdiff_cli.engine.training.recipe import Recipe

EXTENDS = "extends"
"""The key that names the recipe whose settings a file changes."""


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check all of it.

    A file may say `extends: OTHER`, a shipped recipe or a file beside it. Its own keys then change
    the other's; mappings such as `tpm` and `rewards` are merged key by key.

    Args:
        name_or_path: a shipped recipe, or a YAML file.
        overrides: `KEY=VALUE`, with dots into mappings (`tpm.width=128`, `rewards.noise=0.5`) and
            values in YAML. They change what the file says, and a later one what an earlier one did.

    Raises:
        InputError: naming every problem on one line; for a file that cannot be read or is no
            mapping in YAML; for an unknown name, with the nearest one.
    """
    values = _resolved(_locate(str(name_or_path)))
    problems = []
    for override in overrides:
        try:
            _override(values, override)
        except InputError as error:
            problems.append(str(error))
    return parse_recipe(values, str(name_or_path), problems)


def parse_recipe(
    values: Mapping[str, Any], where: str = "recipe", problems: Sequence[str] = ()
) -> Recipe:
    """The recipe of these values.

    Args:
        where: begins the message.
        problems: already known ones, which are reported with the others.

    Raises:
        InputError: naming every problem on one line.
    """
    problems = list(problems)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += map(str, reading.problems(error, Recipe))
    if problems:
        raise InputError(" ".join(f"{where}: {'; '.join(problems)}".split()))
    return recipe


def names() -> list[str]:
    """The shipped recipes, in alphabetical order."""
    return sorted(path.stem for path in _directory().glob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a shipped recipe.

    Raises:
        InputError: for an unknown name, with the nearest one.
    """
    check_choice("recipe", name, names())
    return _directory() / f"{name}.yaml"


def header(name_or_path: str) -> str:
    """The comment that a recipe's file begins with, without its number signs."""
    lines = []
    for line in read_text(_locate(str(name_or_path))).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def to_yaml(recipe: Recipe) -> str:
    """Every setting, resolved; `load_recipe` reads it back as the same recipe."""
    return yaml12.dump(recipe.model_dump(mode="json"))


def copy_recipe(name: str, target: Path) -> None:
    """Copy the file of a shipped recipe, with its comments, to change it.

    Raises:
        InputError: for an unknown name, or a target that exists.
        AsyncDiffError: if it cannot be written.
    """
    source = path_of(name)
    if os.path.lexists(target):
        raise InputError(f"{target} exists already: give the path of a new file")
    write_text(target, source.read_text(encoding="utf-8"))


def _directory() -> Path:
    """Where the shipped recipes are: in the installed package, or at the root of a checkout."""
    package = Path(str(files("asyncdiff_cli")))
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def _locate(name_or_path: str, beside: Path = Path()) -> Path:
    """The file of a shipped recipe, or the file of this path in the directory `beside`."""
    if name_or_path in (known := names()):
        return path_of(name_or_path)
    path = beside / expanded(name_or_path)
    if not path.exists():
        raise InputError(f"{unknown('recipe', name_or_path, known)}, and there is no file {path}")
    return path


def _parse(text: str, where: str) -> Any:
    try:
        return yaml12.load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{where} is not YAML{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 5000 digits
        raise InputError(f"{where} is not YAML: {one_line(error, SHOWN)}") from None


def _resolved(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a file, upon those of the file that it extends."""
    path = path.resolve()
    if path in extending:
        chain = " → ".join(p.name for p in (*extending, path))
        raise InputError(f"recipes extend each other in a circle: {chain}")
    values = _parse(read_text(path), str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings such as iterations: 4000, one a line")
    if EXTENDS not in values:
        return values
    other = values.pop(EXTENDS)
    if not isinstance(other, str):
        raise InputError(
            f"{path}: {EXTENDS} names a recipe or a file beside it, not {shown(other)}"
        )
    base = _resolved(_locate(other, path.parent), (*extending, path))
    for key, value in values.items():
        _put(base, key, value)
    return base


def _put(values: dict[Any, Any], key: Any, value: Any) -> None:
    """Set a key; a mapping upon a mapping is merged."""
    if isinstance(value, dict) and isinstance(old := values.get(key), dict):
        value = {**old, **value}
    values[key] = value


def _override(values: dict[str, Any], override: str) -> None:
    """Apply one `KEY=VALUE` to the values."""
    key, equals, text = override.partition("=")
    key, dot, name = key.strip().partition(".")  # one dot: a reward is called hpsv2.1
    if not equals or not key or (dot and not name):
        raise InputError(
            f"an override is KEY=VALUE, such as iterations=200 or tpm.width=128, not {override!r}"
        )
    if not text.strip():
        raise InputError(f"{override.strip()} gives no value: write null for the default")
    value = _parse(text, f"the value of {override!r}")
    if dot:
        _put(values, key, {name: value})
    else:
        values[key] = value
