"""The backbones that are known by name, and how to load these or any other SD3 or FLUX pipeline."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError
from safetensors import SafetensorError

from asyncdiff_cli.engine.adapters import ADAPTERS, Adapter
from asyncdiff_cli.engine.checks import check_choice, unknown
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.hub import hub_errors, one_line
from asyncdiff_cli.engine.registry import MINI_DIRECTORY, REGISTRY, BackboneEntry
from asyncdiff_cli.engine.schedulers import (
    check_scheduler,
    check_scheduler_name,
    make_scheduler,
    scheduler_name,
)


class Backbone:
    """A loaded pipeline with what the engine knows about it.

    Attributes:
        entry: its name and defaults.
        adapter: how to run its family.
        pipe: the diffusers pipeline.
        directory: where it was loaded from, if from a local directory.
        revision: the commit of the repository it was loaded from, if from one.
    """

    def __init__(
        self,
        pipe: Any,
        entry: BackboneEntry,
        adapter: Adapter,
        directory: Path | None = None,
        revision: str | None = None,
    ) -> None:
        self.pipe, self.entry, self.adapter = pipe, entry, adapter
        self.directory, self.revision = directory, revision

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def device(self) -> torch.device:
        return self.pipe._execution_device

    @property
    def dtype(self) -> torch.dtype:
        return self.pipe.transformer.dtype

    @property
    def device_name(self) -> str:
        """The GPU's own name, or "cpu"."""
        on_gpu = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if on_gpu else self.device.type

    @property
    def scheduler(self) -> str:
        """The scheduler's name, as `load_backbone` takes it."""
        return scheduler_name(self.pipe.scheduler)

    @property
    def size(self) -> int:
        """Default height and width in pixels."""
        return self.entry.size or self.pipe.default_sample_size * self.pipe.vae_scale_factor

    @cached_property
    def fingerprint(self) -> str | None:
        """SHA-256 over the names and bytes of the directory's weight and JSON files, if local."""
        if self.directory is None:
            return None
        digest = hashlib.sha256()
        for path in sorted(self.directory.rglob("*")):
            if path.suffix in {".safetensors", ".bin", ".json"}:
                digest.update(path.relative_to(self.directory).as_posix().encode() + b"\0")
                with path.open("rb") as file:
                    while chunk := file.read(1 << 20):
                        digest.update(chunk)
        return digest.hexdigest()


def backbone_from_pipeline(pipe: Any) -> Backbone:
    """A backbone of a pipeline that is already loaded, on its own device and in its own dtype.

    Args:
        pipe: a `StableDiffusion3Pipeline` or `FluxPipeline`. Its text encoders may be None if
            `sample` is given embeddings. Its scheduler is used as it is.

    Raises:
        InputError: for another class, or a scheduler that cannot integrate a flow.
    """
    for pipeline_class, adapter_class in ADAPTERS.items():
        if type(pipe) is pipeline_class:
            adapter = adapter_class(pipe)
            check_scheduler(pipe.scheduler, adapter.family)
            return Backbone(pipe, anonymous_entry(type(pipe).__name__, adapter.family), adapter)
    raise InputError(_unknown_pipeline(type(pipe).__name__))


def load_backbone(
    name: str,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
    model_path: str | Path | None = None,
    scheduler: str | None = None,
) -> Backbone:
    """Load a backbone. Everything that can be refused is refused before weights are read.

    Args:
        name: "mini", "sd35", "flux", a diffusers pipeline directory, or a repository of one.
        dtype: default fp16 on CUDA, else fp32. A string may be "fp16", "bf16", "fp32" or torch's
            own name.
        device: default CUDA where there is one, else the CPU.
        revision: branch, tag or commit of the repository.
        model_path: load the backbone `name` from this directory instead of its repository.
        scheduler: "euler", "heun" (not FLUX), "dpm-solver++" or "unipc"; default the pipeline's
            own, which is "euler" for all that are known by name.

    Raises:
        InputError: for an unknown name, pipeline class, scheduler, dtype or device, fp16 without
            a GPU, a missing directory, or a revision where there is no repository.
        AsyncDiffError: if the repository is gated or cannot be reached, or a file is corrupted.
    """
    device, dtype = resolve_device(device, dtype)
    entry, source, directory = find_pipeline(name, model_path)
    if scheduler is not None and entry is not None:
        check_scheduler_name(scheduler, entry.family)
    if directory is None:
        with _hub_errors(source):
            index = Path(hf_hub_download(source, "model_index.json", revision=revision))
        commit = index.parent.name  # the cache keeps each snapshot in a folder named by its commit
    elif revision is None:
        index, commit = directory / "model_index.json", None
    else:
        raise InputError(f"a revision belongs to a repository, and {directory} is a directory")

    pipeline_class, adapter_class, absent = read_index(index)
    family = adapter_class.family
    if entry is not None and entry.family != family:
        raise InputError(f"{source} holds a {pipeline_class.__name__}, which is not {entry.name}")
    if scheduler is not None:
        check_scheduler_name(scheduler, family)

    with _hub_errors(source), _weight_errors(source), warnings.catch_warnings():
        # `dtype` replaces `torch_dtype` in the newest diffusers; older ones would ignore it
        warnings.filterwarnings("ignore", message=".*torch_dtype.*")
        pipe = pipeline_class.from_pretrained(source, torch_dtype=dtype, revision=commit, **absent)
        modules = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
        if any(parameter.is_meta for module in modules for parameter in module.parameters()):
            raise ValueError("weights are missing")
    pipe.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipe.scheduler = make_scheduler(scheduler, family, pipe.scheduler.config)
    check_scheduler(pipe.scheduler, family)
    pipe.to(device)
    return Backbone(
        pipe, entry or anonymous_entry(name, family), adapter_class(pipe), directory, commit
    )


DTYPES = {
    "fp16": torch.float16,
    "float16": torch.float16,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp32": torch.float32,
    "float32": torch.float32,
}


def resolve_device(
    device: torch.device | str | None = None, dtype: torch.dtype | str | None = None
) -> tuple[torch.device, torch.dtype]:
    """Fill in the defaults of `load_backbone`, and refuse what this machine cannot do.

    Raises:
        InputError: for an unknown device or dtype, CUDA where there is none, or fp16 on a CPU.
    """
    try:
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise InputError(f"unknown device {device!r}; use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use --device cpu")
    if dtype is None:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    elif isinstance(dtype, str):
        check_choice("dtype", dtype, DTYPES)
        dtype = DTYPES[dtype]
    if dtype not in DTYPES.values():
        raise InputError(f"{dtype} is not a dtype to run a model in; use fp32, bf16 or fp16")
    if dtype is torch.float16 and device.type == "cpu":
        raise InputError("fp16 needs a GPU, and the device is the CPU; use fp32 or bf16")
    return device, dtype


def find_pipeline(
    name: str, model_path: str | Path | None
) -> tuple[BackboneEntry | None, str, Path | None]:
    """The registry's entry if there is one, what to load, and its directory if it is one."""
    entry = REGISTRY.get(name)
    if model_path is not None:
        directory = Path(model_path)
    elif name == "mini":
        directory = MINI_DIRECTORY
    elif entry is None and Path(name).is_dir():
        directory = Path(name)
    elif entry is not None and entry.repo is not None:
        return entry, entry.repo, None
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return None, name, None
    elif "/" in name:
        raise InputError(f"there is no directory {name}")
    else:
        raise InputError(unknown("backbone", name, REGISTRY) + ", or a directory or repository")
    if not (directory / "model_index.json").is_file():
        raise InputError(f"{directory} is not a diffusers pipeline: it has no model_index.json")
    return entry, str(directory), directory


def read_index(index: Path) -> tuple[Any, type[Adapter], dict[str, None]]:
    """The pipeline's class and its adapter's, and None for each component that it does without."""
    try:
        components = json.loads(index.read_text())
        class_name = components["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise AsyncDiffError(f"{index} is corrupted: it does not name a pipeline class") from None
    for pipeline_class, adapter_class in ADAPTERS.items():
        if pipeline_class.__name__ == class_name:
            absent = {name: None for name, value in components.items() if value == [None, None]}
            return pipeline_class, adapter_class, absent
    raise InputError(_unknown_pipeline(class_name))


def _unknown_pipeline(class_name: str) -> str:
    return unknown("pipeline class", class_name, [c.__name__ for c in ADAPTERS])


def anonymous_entry(name: str, family: str) -> BackboneEntry:
    """A pipeline without a name: the family's settings, and its own size and licence."""
    model = next(e for e in REGISTRY.values() if e.family == family and e.repo is not None)
    return replace(
        model, name=name, repo=None, size=None, licence="its own", licence_url=None, gated=False
    )


def _hub_errors(repo: str) -> AbstractContextManager[None]:
    return hub_errors(
        repo,
        local="--model-path DIR",
        embedded="`--backbone mini` needs no download",
        lacking="is not a diffusers pipeline: it has no model_index.json",
    )


@contextmanager
def _weight_errors(source: str) -> Iterator[None]:
    """What diffusers and transformers raise for truncated, missing or mismatched weight files."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AsyncDiffError, HfHubHTTPError, EntryNotFoundError, GatedRepoError):
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise AsyncDiffError(
            f"the model in {source} is incomplete or corrupted, fetch it again ({one_line(error)})"
        ) from None
