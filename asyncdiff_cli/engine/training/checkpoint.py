"""A checkpoint: the whole state of a training in one file, which is whole, or known not to be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from safetensors import safe_open

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.files import write_atomically
from asyncdiff_cli.engine.rewards import local_weights
from asyncdiff_cli.engine.training.recipe import LATER, RESUMABLE

if TYPE_CHECKING:
    from torch import Tensor

    from asyncdiff_cli.engine.backbones.backbone import Backbone
    from asyncdiff_cli.engine.backbones.outline import Outline
    from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
    from asyncdiff_cli.engine.training.recipe import Recipe


STATE = "asyncdiff"
"""The key of a checkpoint's metadata that holds its state as JSON."""


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

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without it."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


def identity(
    recipe: Recipe, backbone: Backbone | Outline, prompts: PromptSet, held_out: PromptSet
) -> str:
    """SHA-256 over all that a checkpoint of a run depends on."""
    values = recipe.model_dump(exclude={*RESUMABLE, *LATER})
    values |= recipe.model_dump(include=set(LATER), exclude_defaults=True)
    # in the order in which it has always been hashed, whatever order the fields come in
    first = {name: values[name] for name in ("backbone", "revision", "scheduler", "grid", "dtype")}
    parts = (
        TypeAdapter(dict).dump_json({**first, **values}).decode(),
        backbone.fingerprint or backbone.revision or "",
        prompts.fingerprint,
        held_out.fingerprint,
        *(weights for name in recipe.rewards if (weights := _weights(recipe, name)) is not None),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _weights(recipe: Recipe, name: str) -> str | None:
    return local_weights(name, recipe.reward_paths.get(name))


def write_checkpoint(path: Path, checkpoint: Checkpoint, identity: str) -> None:
    """Write a checkpoint of the run with this identity.

    Raises:
        AsyncDiffError: if it cannot be written.
    """
    from safetensors.torch import save  # which imports torch

    state = {**checkpoint.state, "identity": identity, "sha256": digest(checkpoint)}
    metadata = {STATE: json.dumps(state)}
    write_atomically(path, lambda file: file.write_bytes(save(checkpoint.tensors, metadata)))


def read_checkpoint(path: Path, identity: str) -> Checkpoint:
    """Read a checkpoint of the run with this identity.

    Raises:
        AsyncDiffError: naming the file, if it is torn or another run's.
    """
    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})[STATE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checkpoint = Checkpoint(state, tensors)
        written_by, recorded = state.pop("identity"), state.pop("sha256")
    except Exception:  # for bytes of another shape the readers raise any class
        raise AsyncDiffError(f"checkpoint {path} is torn: skipped") from None
    if recorded != digest(checkpoint):
        raise AsyncDiffError(f"checkpoint {path} is damaged: skipped")
    if written_by != identity:
        raise AsyncDiffError(f"checkpoint {path} is of another recipe, backbone or reward: skipped")
    return checkpoint


def digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over the state and the tensors."""
    sha = hashlib.sha256(json.dumps(checkpoint.state, sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        sha.update(name.encode() + b"\0" + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()
