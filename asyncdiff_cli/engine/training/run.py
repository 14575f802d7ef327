"""The directory of a training run: its recipe, its metrics, its checkpoints.

recipe.yaml      the resolved recipe
metrics.jsonl    a line per iteration, per evaluation and per warning
checkpoints/     000050.safetensors …: the last few, and the best by held-out reward
samples/         000100.png …: fixed prompts and noise, baseline beside current
tpm/             the module to use: the best by held-out reward, or else the last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import inside, listed, temporary, write_atomically, write_text
from asyncdiff_cli.engine.reading import MEBIBYTE, Read, parse_json, read_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule


MODULE = "README.md", "config.json", "model.safetensors"
"""The files of a module."""
STATE = "asyncdiff"
"""The key of a checkpoint's metadata that holds its state as JSON."""
LARGE = 256 * MEBIBYTE
"""What the metrics of a run are below."""


class Compared(Read):
    """A held-out metric beside the baseline's."""

    mean: float
    difference: float
    low: float
    high: float
    n: int


class Reward(Read):
    """What an iteration's images got."""

    raw: float


class Spread(Read):
    """The mean and deviation of each step."""

    mean: list[float]
    std: list[float]


class Metrics(Read):
    """A line of metrics.jsonl: of an iteration, of an evaluation, or a warning."""

    iteration: Annotated[int, Field(ge=0)]
    rewards: dict[str, Reward] = Field({})
    composite: float = 0.0
    deviation: Spread | list[float] = Field([])
    held_out: dict[str, Compared | float] = Field({})
    best: int | None = None
    warning: str = ""

    @model_validator(mode="after")
    def _check_deviation(self) -> Metrics:
        if self.rewards and not isinstance(self.deviation, Spread):
            raise ValueError("deviation: an iteration has its mean and std")
        return self


@dataclass(frozen=True)
class Checkpoint:
    """The whole state of a training after an iteration.

    There is no random number generator in it: every draw is a function of the seed, the iteration
    and the trajectory, and so is the place in the data.
    """

    state: dict[str, Any]
    """JSON values; "iteration" counts those that are complete."""
    tensors: dict[str, Tensor]
    """Weights and the optimizer's moments, on the CPU."""

    @property
    def iteration(self) -> int:
        return self.state["iteration"]


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
        """The grid of an iteration."""
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
        write_text(self.path / "recipe.yaml", recipe)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a line to the metrics.

        Raises:
            AsyncDiffError: if it cannot be written.
        """
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise AsyncDiffError(f"cannot write {self.metrics}: {error.strerror}") from None

    def rows(self) -> list[dict[str, Any]]:
        """The metrics, without a torn last line; none of a run that has just begun.

        Raises:
            InputError: naming a line that is damaged.
        """
        if not self.metrics.exists():
            return []
        lines = read_bytes(self.metrics, LARGE).split(b"\n")
        found = []
        for number, line in enumerate(lines[:-1], start=1):  # what no line end follows is torn
            if line.strip():
                parse_json(line, Metrics, f"{self.metrics}, line {number}")
                found.append(json.loads(line))
        return found

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
        from safetensors.torch import save  # which imports torch

        path = self.file(checkpoint.iteration)
        state = {**checkpoint.state, "identity": self.identity, "sha256": digest(checkpoint)}
        metadata = {STATE: json.dumps(state)}
        write_atomically(path, lambda file: file.write_bytes(save(checkpoint.tensors, metadata)))
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
        try:
            with safe_open(path, "pt") as file:
                state = json.loads((file.metadata() or {})[STATE])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            checkpoint = Checkpoint(state, tensors)
            own, recorded = state.pop("identity"), state.pop("sha256")
        except Exception:  # for bytes of another shape the readers raise any class
            raise AsyncDiffError(f"checkpoint {path} is torn: skipped") from None
        if recorded != digest(checkpoint):
            raise AsyncDiffError(f"checkpoint {path} is damaged: skipped")
        if own != self.identity:
            raise AsyncDiffError(f"checkpoint {path} is of another recipe or backbone: skipped")
        return checkpoint

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
    found = {int(f.stem): f for f in listed(directory, f"*{suffix}") if f.stem.isdecimal()}
    return dict(sorted(found.items()))


def digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over the state and the tensors."""
    sha = hashlib.sha256(json.dumps(checkpoint.state, sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        sha.update(name.encode() + b"\0" + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()
