"""What the shell completes the values of options with, and what refuses them before they are used.

Each imports what it asks only when it is called: help and completion load nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.dtypes import DTYPES, check_device
from asyncdiff_cli.engine.files import check_directory, check_writable, existing, expanded


def complete_backbone(incomplete: str) -> list[tuple[str, str]]:
    """Backbones known by name."""
    return [(name, e.licence) for name, e in REGISTRY.items() if name.startswith(incomplete)]


def completing(names: Iterable[str]) -> Callable[[str], list[str]]:
    """A function that completes any of some names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


complete_dtype = completing(("fp32", "bf16", "fp16"))


def complete_reward(incomplete: str) -> list[str]:
    """Rewards known by name, also after those that are already named."""
    from asyncdiff_cli.engine.rewards import AVAILABLE

    return _one_more(incomplete, AVAILABLE)


def complete_set_metric(incomplete: str) -> list[str]:
    """Set metrics, also after those that are already named."""
    from asyncdiff_cli.engine.evaluation.set_metrics import NAMES

    return _one_more(incomplete, NAMES)


def complete_layout(incomplete: str) -> list[str]:
    """Layouts that stores are exported in."""
    from asyncdiff_cli.engine.evaluation.layouts.table import LAYOUTS

    return [name for name in LAYOUTS if name.startswith(incomplete)]


def _one_more(incomplete: str, names: Iterable[str]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


def complete_recipe(incomplete: str) -> list[str]:
    """Recipes that come with the package."""
    from asyncdiff_cli.engine.training.recipe_files import names

    return [name for name in names() if name.startswith(incomplete)]


def complete_tracker(incomplete: str) -> list[str]:
    """What a training may log to."""
    from asyncdiff_cli.engine.training.run_options import TRACKERS

    return [name for name in TRACKERS if name.startswith(incomplete)]


def read_paths(value: Any) -> Any:
    """Refuse a path that is read and not there, before what reads it is imported."""
    for path in value if isinstance(value, list | tuple) else [value]:
        if path is not None:
            existing(path)
    return value


def read_prompts(path: Path | None) -> Path | None:
    """Refuse prompts that are not there, as `read_paths`; those of a data set are not looked up."""
    from asyncdiff_cli.engine.prompts.files import existing_prompts

    if path is not None:
        existing_prompts(path)
    return path


def try_file(context: typer.Context, path: Path | None) -> Path | None:
    """Refuse a file that cannot be written, before there is something to write."""
    if path is not None and not context.resilient_parsing:  # as where the shell completes
        check_writable(expanded(path))
    return path


def try_directory(context: typer.Context, path: Path | None) -> Path | None:
    """Refuse a directory as `try_file` refuses a file."""
    if path is not None and not context.resilient_parsing:
        check_directory(expanded(path))
    return path


def read_device(name: str | None) -> str | None:
    """Refuse what is no name of a device before torch is imported to look for it."""
    if name is not None:
        check_device(name)
    return name


def read_dtype(name: str | None) -> str | None:
    """Refuse what is no dtype before torch is imported to compute in it."""
    if name is not None:
        check_choice("dtype", name, DTYPES)
    return name


def read_policies(text: str | None) -> str | None:
    """Refuse a policy that is not known before what draws with it is imported."""
    if text:
        from asyncdiff_cli.engine.policies.specs import find_policy

        for part in text.split(","):
            find_policy(part)
    return text


def read_dataset(text: str | None) -> str | None:
    """Refuse a set of prompts that is not known before what draws it is imported."""
    if text:
        from asyncdiff_cli.engine.prompts.load import check_source

        check_source(text)
    return text


def read_layout(name: str) -> str:
    """Refuse a layout that is not known before a store is read."""
    from asyncdiff_cli.engine.evaluation.layouts.table import find_layout

    find_layout(name)
    return name


def read_rewards(text: str | None) -> str | None:
    """Refuse a reward that is not known before any is imported."""
    if text:
        from asyncdiff_cli.engine.rewards import parse_rewards

        parse_rewards(text)
    return text


def read_set_metrics(text: str | None) -> str | None:
    """Refuse a set metric that is not known, or not installed, before anything is loaded."""
    if text:
        from asyncdiff_cli.engine.evaluation.set_metrics import check_set_metrics

        check_set_metrics([name.strip() for name in text.split(",")])
    return text


def read_reward_paths(items: list[str] | None) -> list[str] | None:
    """Refuse a checkpoint that is not there before what reads it is imported."""
    from asyncdiff_cli.engine import rewards
    from asyncdiff_cli.engine.evaluation import set_metrics

    rewards.parse_reward_paths(items or [], (*rewards.ENTRIES, *set_metrics.NAMES))
    return items
