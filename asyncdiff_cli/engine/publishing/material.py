"""What can be published, found on the disk without torch: a module, a schedule or a spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.modules import MODULE_FILES, read_config
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.reading import Read, read_json
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.run import RECIPE


@dataclass(frozen=True)
class TrainedModule:
    """A module on the disk."""

    directory: Path
    run: Path | None = None
    """The run that trained it; None if that is not known."""


CARD = "README.md"
Material = TrainedModule | Schedule | MeasuredSpectrum
FILES: dict[type[Material], tuple[str, ...]] = {
    TrainedModule: MODULE_FILES,
    Schedule: (Schedule.file,),
    MeasuredSpectrum: (MeasuredSpectrum.file,),
}
"""The files that each is loaded from, out of a repository."""


def find_material(path: Path) -> Material:
    """Find what is to be published.

    Args:
        path: the directory of a run or of a module, or the file of a schedule or a spectrum.

    Raises:
        InputError, AsyncDiffError: for what is none of these, or damaged.
    """
    if not path.is_dir():
        return _read_file(path)
    run = next((place for place in (path, path.parent) if _trained(place, path)), None)
    directory = path if run is None else run / "tpm"
    if lacking := [name for name in MODULE_FILES if not (directory / name).is_file()]:
        raise InputError(
            f"{path} holds neither a module nor a run with one in tpm/: it has no {lacking[0]}"
        )
    read_config(directory, directory)
    if run is not None:
        load_recipe(str(run / RECIPE))
    return TrainedModule(directory, run)


def _trained(run: Path, path: Path) -> bool:
    """Whether a path is that of a run, or of the module in it."""
    return (run / RECIPE).is_file() and path in (run, run / "tpm")


def _read_file(path: Path) -> Material:
    keys = read_json(path, Read).model_extra or {}
    for kind, key in ((Schedule, "deviations"), (MeasuredSpectrum, "std")):
        if key in keys:
            return kind.load(path)
    raise InputError(
        f"{path} is neither a schedule nor a spectrum: give a file that `asyncdiff calibrate`,"
        " `distill` or `spectrum` has written, or the directory of a run"
    )
