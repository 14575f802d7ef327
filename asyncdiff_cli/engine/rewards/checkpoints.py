"""Reward checkpoints: from their place on the hub or from a local file, without running pickles."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn

from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning, InputError
from asyncdiff_cli.engine.hub import hub_errors
from asyncdiff_cli.engine.reading import check_readable
from asyncdiff_cli.engine.text import first_few, one_line

WITHOUT_DOWNLOAD = "`--rewards mini_clip,mini_quality,noise` needs no download"


def download_checkpoint(
    name: str, repo: str, file: str, revision: str | None = None
) -> tuple[Path, str]:
    """A file of a repository, and the commit that it is of.

    Raises:
        AsyncDiffError: if the repository is gated or cannot be reached.
        InputError: for a revision or file that it does not have.
    """
    with errors(name, repo):
        path = Path(hf_hub_download(repo, file, revision=revision))
    return path, commit(path, file)


def commit(path: Path, file: str) -> str:
    """The cache keeps each snapshot in a folder that is named by its commit."""
    return path.parents[file.count("/")].name


def errors(name: str, repo: str) -> Any:
    """The hub's refusals, in the words of the reward `name`."""
    return hub_errors(
        repo, f"--reward-path {name}=FILE", WITHOUT_DOWNLOAD, "lacks a file of this reward"
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The weights of a safetensors or torch file, on the CPU.

    They are mapped into memory, where all processes of a machine share them, and are read when they
    are used.

    A pickle is only read as tensors (`weights_only=True`), so that it cannot run code. Weights
    under the key "state_dict", as training scripts write them, are found too.

    Raises:
        InputError: for a file that is missing or may not be read.
        AsyncDiffError: for one that is damaged, or holds more than weights.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    check_readable(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        mapped = zipfile.is_zipfile(path)  # unlike what torch wrote before 1.6
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise AsyncDiffError(
            f"{path} is not a file of plain weights (it is damaged, or would run code): fetch the"
            " published checkpoint again"
        ) from None
    except Exception as error:  # for files of another shape torch raises any class
        why = one_line(error) or "it ends early"
        raise AsyncDiffError(f"{path} is damaged, fetch it again ({why})") from None
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise AsyncDiffError(f"{path} holds no state dict: it is not the published checkpoint")
    return weights


def fill(model: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Load all weights of a model, whose own may be on the meta device; warn of others.

    Published files may hold more than the network: heads of a training, or constants that older
    versions of a library kept as weights.

    Raises:
        AsyncDiffError: if one is missing or has another shape, with the first few that are.
    """
    own = model.state_dict()
    missing = sorted(own.keys() - weights.keys())
    wrong = [
        *(f"{key} is missing" for key in missing),
        *(
            f"{key} is {list(weights[key].shape)}, not {list(tensor.shape)}"
            for key, tensor in own.items()
            if key in weights and weights[key].shape != tensor.shape
        ),
        *(
            f"{key} is of whole numbers"
            for key, tensor in own.items()
            if key in weights
            and tensor.is_floating_point()
            and not weights[key].is_floating_point()
        ),
    ]
    if wrong:
        raise AsyncDiffError(f"these are not the weights of {name}: {first_few(wrong)}")
    if extra := [key for key in weights if key not in own]:
        text = (
            f"the file of {name} holds {len(extra)} weights that its network does not have, such"
            f" as {extra[0]}: they are left out"
        )
        warnings.warn(text, AsyncDiffWarning, stacklevel=2)
    model.load_state_dict({key: weights[key] for key in own}, assign=True)
    model.float().eval().requires_grad_(False)
