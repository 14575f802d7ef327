"""A push as a whole: a folder is written, and goes up or is kept to be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.engine.publishing.destination import Destination
from asyncdiff_cli.engine.publishing.folder import written_folder
from asyncdiff_cli.engine.publishing.material import Material, TrainedModule
from asyncdiff_cli.engine.publishing.upload import Remote, upload


def publish(
    material: Material,
    destination: Destination,
    remote: Remote | None,
    licence: str | None,
    folder: Path | None,
    on_note: Callable[[str], None],
) -> dict[str, Any]:
    """Write the folder of something, and push it.

    Args:
        remote: what `look_up` has found.
        folder: keep what would go up here, and push nothing.
        on_note: told what to know of the card.

    Returns:
        JSON values: the repository, the files with their bytes, and either the folder, or the
        commit with its page, whether it is new, and the place to name to use it.

    Raises:
        InputError, AsyncDiffError: as `written_folder`, `Folder.keep` and `upload`.
    """
    with written_folder(material, destination.repository, licence) as written:
        for note in written.notes:
            on_note(note)
        found = {
            "repository": destination.repository,
            "files": {file.name: file.stat().st_size for file in written.files},
        }
        if folder is not None:
            written.keep(folder)
            return {**found, "folder": str(folder)}
        pushed = upload(written.files, destination, remote, f"Push {_noun(material)}")
    return {
        **found,
        "commit": pushed.commit,
        "url": pushed.url,
        "changed": pushed.changed,
        "place": f"{destination.repository}@{pushed.commit}",
    }


def _noun(material: Material) -> str:
    if isinstance(material, TrainedModule):
        return "a timestep prediction module"
    return "a schedule" if isinstance(material, Schedule) else "a spectrum"
