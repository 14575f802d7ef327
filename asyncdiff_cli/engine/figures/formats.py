"""What figures are written as."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli.engine.errors import InputError

FORMATS: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What files can be, with the metadata that is left out of them."""


def check_suffix(path: Path) -> str:
    """What a figure of this name is written as: "png", "svg" or "pdf".

    Raises:
        InputError: for another suffix.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise InputError(f"a figure is written as .png, .svg or .pdf, not {path.name}")
    return suffix
