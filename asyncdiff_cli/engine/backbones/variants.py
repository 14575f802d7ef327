"""Weights that are saved as a variant, such as `model.fp16.safetensors`: which has to be named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asyncdiff_cli.engine.backbones.weights import WEIGHT_FILE
from asyncdiff_cli.engine.errors import InputError


def variants(names: Iterable[str]) -> set[str]:
    """The variants of a component's weights, by the names of its files; "" is none."""
    found = filter(None, map(WEIGHT_FILE.fullmatch, names))
    return {match["variant"] or match["late_variant"] or "" for match in found}


def needed_variant(files: Mapping[str, Iterable[str]]) -> str | None:
    """The variant without which a pipeline is not complete; None if it needs none.

    diffusers takes one for the whole pipeline, and plain weights where a component lacks it. Of
    several that would do it is the first by name.

    Args:
        files: the names of the files of each component.

    Raises:
        InputError: if no single one does.
    """
    found = {name: variants(own) for name, own in files.items()}
    lacking = {name: own for name, own in found.items() if own and "" not in own}
    if not lacking:
        return None
    if common := set.intersection(*lacking.values()):
        return min(common)
    told = "; ".join(f"{name}: {', '.join(sorted(own))}" for name, own in lacking.items())
    raise InputError(f"its weights are variants of several names ({told}): save it as one")
