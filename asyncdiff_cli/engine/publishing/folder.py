"""The folder that goes up: safetensors, JSON, PNG and a README.md, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.figures.style import save_figure
from asyncdiff_cli.engine.files import write_atomically, write_text
from asyncdiff_cli.engine.policies.modules import MODULE_FILES
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.publishing.card import Card, without_folders
from asyncdiff_cli.engine.publishing.material import CARD, FILES, Material, TrainedModule
from asyncdiff_cli.engine.publishing.module_card import module_card
from asyncdiff_cli.engine.publishing.schedule_card import schedule_card, spectrum_card


@dataclass(frozen=True)
class Folder:
    """What goes up."""

    files: Sequence[Path]
    """The files, sorted by their names."""
    notes: Sequence[str]
    """What a user should know of it."""

    def keep(self, directory: Path) -> list[Path]:
        """Copy the files to a directory, in the place of nothing but the same.

        Raises:
            InputError: naming a file that holds something else.
            AsyncDiffError: if one cannot be written.
        """
        kept = [directory / file.name for file in self.files]
        for file, place in zip(self.files, kept, strict=True):
            if place.exists() and place.read_bytes() != file.read_bytes():
                raise InputError(
                    f"{place} is there and holds something else: give another --out, or remove it"
                )
        for file, place in zip(self.files, kept, strict=True):
            write_atomically(place, partial(shutil.copyfile, file))
        return kept


@contextmanager
def written_folder(material: Material, repository: str, licence: str | None) -> Iterator[Folder]:
    """Write what goes up to a directory that is gone after the block.

    Args:
        repository: where it goes, which the card names.

    Raises:
        InputError, AsyncDiffError: for something that is damaged, or cannot be written.
    """
    card = card_of(material)
    notes = list(card.lacking)
    if licence is None:
        notes.append("the card names no licence: give --license, such as apache-2.0")
    with TemporaryDirectory(prefix="asyncdiff-") as name:
        directory = Path(name)
        text = card.text(repository, licence)
        write_text(directory / CARD, text)
        if _write_content(material, directory):
            notes.append(
                f"folders of this machine were left out of the paths in {FILES[type(material)][0]}"
            )
        for chart in card.charts:
            save_figure(chart.figure, directory / chart.file)
        yield Folder(sorted(directory.iterdir()), notes)


def card_of(material: Material) -> Card:
    """What the card of something says. Raises: as `written_folder`."""
    if isinstance(material, TrainedModule):
        return module_card(material)
    return schedule_card(material) if isinstance(material, Schedule) else spectrum_card(material)


def _write_content(material: Material, directory: Path) -> bool:
    """Write the files that are loaded; whether they are other than those on the disk."""
    if isinstance(material, TrainedModule):
        for name in MODULE_FILES:
            shutil.copyfile(material.directory / name, directory / name)
        return False
    place = directory / material.file
    material.save(place)
    text = place.read_text(encoding="utf-8")
    write_text(place, without_folders(text))
    return text != without_folders(text)
