"""The directory of a training run: its recipe, its metrics, its checkpoints.

recipe.yaml      the resolved recipe
metrics.jsonl    a line per iteration, per evaluation and per warning
checkpoints/     000050.safetensors …: the last few, and the best by held-out reward
samples/         000100.png …: fixed prompts and noise, baseline beside current
tpm/             the module to use: the best by held-out reward, or else the last
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from safetensors import SafetensorError

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import inside, listed, temporary, write_atomically, write_text
from asyncdiff_cli.engine.reading import MEBIBYTE, parse_json, read_bytes
from asyncdiff_cli.engine.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from asyncdiff_cli.engine.training.rows import MetricRow, RecordedRow

if TYPE_CHECKING:
    from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule


RECIPE = "recipe.yaml"
"""The resolved recipe."""
MODULE = "README.md", "config.json", "model.safetensors"
"""The files of a module."""
LARGEST_METRICS = 256 * MEBIBYTE
"""Bytes that the metrics of a run are below."""


class RunDirectory:
    """Reads and writes a run.

    Args:
        path: the directory.
        identity: what a checkpoint must have been made with to be this run's.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity

    @property
    def metrics(self) -> Path:
        return inside(self.path, "metrics.jsonl")

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tpm(self) -> Path:
        return self.path / "tpm"

    def sample(self, iteration: int) -> Path:
        """The sheet of an iteration."""
        return inside(self.path, f"samples/{iteration:06d}.png")

    def samples(self) -> list[int]:
        """The iterations that have a grid, in their order."""
        return list(by_iteration(self.path / "samples", ".png"))

    @staticmethod
    def check_new(path: Path) -> None:
        """Check that a new run's directory holds nothing, but what one hid that never began.

        Raises:
            InputError: if there is.
        """
        if path.exists() and (not path.is_dir() or any(path.glob("[!.]*"))):
            raise InputError(
                f"{path} exists: go on with `asyncdiff train --resume {path}`, or give another"
                " --out"
            )

    def start(self, recipe: str) -> None:
        """Make the directory of a new run.

        Raises:
            InputError: if there is something in it.
            AsyncDiffError: if it cannot be written.
        """
        self.check_new(self.path)
        write_text(self.path / RECIPE, recipe)

    def log(self, row: MetricRow) -> None:
        """Append a line to the metrics.

        Raises:
            AsyncDiffError: if it cannot be written.
        """
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise AsyncDiffError(f"cannot write {self.metrics}: {error.strerror}") from None

    def rows(self) -> list[MetricRow]:
        """The metrics, without a torn last line; none of a run that has just begun.

        What `RecordedRow` does not name may be missing.

        Raises:
            InputError: naming a line that is damaged.
        """
        if not self.metrics.exists():
            return []
        lines = read_bytes(self.metrics, LARGEST_METRICS).split(b"\n")
        rows = []
        for number, line in enumerate(lines[:-1], start=1):  # what no line end follows is torn
            if line.strip():
                parse_json(line, RecordedRow, f"{self.metrics}, line {number}")
                rows.append(cast("MetricRow", json.loads(line)))
        return rows

    def forget_after(self, iteration: int) -> None:
        """Drop what a killed run left behind: the metrics of later iterations, which will be run
        again, and a torn last line."""
        if self.metrics.exists():
            kept = [row for row in self.rows() if row["iteration"] <= iteration]
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))

    def file(self, iteration: int) -> Path:
        """The checkpoint of an iteration."""
        return self.checkpoints / f"{iteration:06d}.safetensors"

    def save(self, checkpoint: Checkpoint, keep: int, best: int | None) -> Path:
        """Write a checkpoint, and drop those that are neither among the last `keep` nor `best`.

        Raises:
            AsyncDiffError: if it cannot be written.
        """
        path = self.file(checkpoint.iteration)
        write_checkpoint(path, checkpoint, self.identity)
        kept = {*self.files()[-keep:], path, *(() if best is None else (self.file(best),))}
        for old in self.files():
            if old not in kept:
                old.unlink(missing_ok=True)
        return path

    def last(self, on_refused: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole and of this run; None if there is none.

        Args:
            on_refused: told about each newer one that is neither, and why.
        """
        for path in reversed(self.files()):
            try:
                return self.read(path)
            except AsyncDiffError as error:
                on_refused(str(error))
        return None

    def read(self, path: Path) -> Checkpoint:
        """Read a checkpoint of this run.

        Raises:
            AsyncDiffError: naming the file, if it is torn or another run's.
        """
        return read_checkpoint(path, self.identity)

    def is_kept(self) -> bool:
        """Whether the module to use is there with all its files."""
        return all((self.tpm / name).is_file() for name in MODULE)

    def keep(self, module: TimestepPredictionModule) -> None:
        """Write the module to use, the weights last.

        Raises:
            AsyncDiffError: if it cannot be written.
        """
        try:
            with temporary(self.tpm, directory=True) as directory:
                module.save_pretrained(directory)
                files = {name: (directory / name).read_bytes() for name in MODULE}
        except (OSError, SafetensorError) as error:
            raise AsyncDiffError(f"cannot write {self.tpm}: {error}") from None
        for name, content in files.items():
            write_atomically(self.tpm / name, partial(Path.write_bytes, data=content))

    def files(self) -> list[Path]:
        """The checkpoints, the last one last."""
        return list(by_iteration(self.checkpoints, ".safetensors").values())


def by_iteration(directory: Path, suffix: str) -> dict[int, Path]:
    """The files that are named by an iteration, in its order. Others are not ours."""
    files = {int(f.stem): f for f in listed(directory, f"*{suffix}") if f.stem.isdecimal()}
    return dict(sorted(files.items()))
