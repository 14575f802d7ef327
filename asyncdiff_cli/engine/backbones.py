"""The backbones that are known by name, and how to load these or any other pipeline of theirs."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError
from safetensors import SafetensorError

from asyncdiff_cli.engine.adapters import ADAPTERS, Adapter
from asyncdiff_cli.engine.checks import check_choice, unknown, unknown_pipeline
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.hub import hub_errors, one_line
from asyncdiff_cli.engine.registry import MINI_DIRECTORY, REGISTRY, BackboneEntry
from asyncdiff_cli.engine.schedulers import (
    check_names,
    check_scheduler,
    grid_name,
    make_scheduler,
    scheduler_name,
)
from asyncdiff_cli.engine.setup import LoRA, Setup, quantization

if TYPE_CHECKING:
    from asyncdiff_cli.engine.requests import ModelChoice


class Backbone:
    """A loaded pipeline with what the engine knows about it.

    Attributes:
        entry: its name and defaults.
        adapter: how to run its family.
        pipe: the diffusers pipeline.
        dtype: what it computes in.
        directory: where it was loaded from, if from a local directory.
        revision: the commit of the repository it was loaded from, if from one.
        checkpoint: the file that its transformer was loaded from, if from one.
        setup: how it is held and run.
    """

    def __init__(
        self,
        pipe: Any,
        entry: BackboneEntry,
        adapter: Adapter,
        dtype: torch.dtype,
        directory: Path | None = None,
        revision: str | None = None,
        checkpoint: Path | None = None,
        setup: Setup = Setup(),  # noqa: B008 - it is frozen
    ) -> None:
        self.pipe, self.entry, self.adapter, self.dtype = pipe, entry, adapter, dtype
        self.directory, self.revision, self.checkpoint = directory, revision, checkpoint
        self.setup = setup

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def device(self) -> torch.device:
        return self.pipe._execution_device

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
    def grid(self) -> str:
        """The grid's name, as `load_backbone` takes it."""
        return grid_name(self.pipe.scheduler)

    @property
    def size(self) -> int:
        """Default height and width in pixels."""
        return self.entry.size or self.adapter.default_size

    @cached_property
    def fingerprint(self) -> str | None:
        """SHA-256 over the names and bytes of the local weight and JSON files, if there are any."""
        files: list[tuple[str, Path]] = []
        if self.directory is not None:
            files += _weight_files(self.directory)
        if self.checkpoint is not None:
            files.append((self.checkpoint.name, self.checkpoint))
        for text in self.setup.lora:
            path = LoRA.parse(text).local()
            files += [(path.name, path)] if path.is_file() else _weight_files(path)
        if not files:
            return None
        digest = hashlib.sha256()
        for name, path in files:
            digest.update(name.encode() + b"\0")
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()


def _weight_files(directory: Path) -> list[tuple[str, Path]]:
    suffixes = {".safetensors", ".bin", ".json"}
    found = (path for path in sorted(directory.rglob("*")) if path.suffix in suffixes)
    return [(path.relative_to(directory).as_posix(), path) for path in found]


def backbone_from_pipeline(pipe: Any) -> Backbone:
    """A backbone of a pipeline that is already loaded, on its own device and in its own dtype.

    Args:
        pipe: of a class in `ADAPTERS`: `StableDiffusion3Pipeline`, `FluxPipeline`, … Its text
            encoders may be None if `sample` is given embeddings. Its scheduler is used as it is.

    Raises:
        InputError: for another class, or a scheduler that cannot integrate a flow.
    """
    for pipeline_class, adapter_class in ADAPTERS.items():
        if type(pipe) is pipeline_class:
            adapter = adapter_class(pipe)
            check_scheduler(pipe.scheduler, adapter.family)
            entry = anonymous_entry(type(pipe).__name__, adapter.family)
            return Backbone(pipe, entry, adapter, pipe.transformer.dtype)
    raise InputError(_unknown_pipeline(type(pipe).__name__))


def load_backbone(
    name: str,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
    model_path: str | Path | None = None,
    scheduler: str | None = None,
    grid: str | None = None,
    *,
    quantize: str | None = None,
    offload: str | None = None,
    lora: str | Sequence[str] = (),
    compile: bool = False,
    attention: str | None = None,
    parts: str = "all",
) -> Backbone:
    """Load a backbone. Everything that can be refused is refused before weights are read.

    Args:
        name: a name of `REGISTRY`, a diffusers pipeline directory, or a repository of one.
        dtype: default fp16 on CUDA, else fp32. A string may be "fp16", "bf16", "fp32" or torch's
            own name. Under fp16 transformers keeps the layers of T5 that would overflow in fp32.
        device: default CUDA where there is one, else the CPU.
        revision: branch, tag or commit of the repository.
        model_path: load the backbone `name` from this directory instead of its repository; or its
            transformer from this .safetensors or .gguf file, and the rest as without it.
        scheduler: "euler", "heun", "dpmpp" or "unipc"; default the pipeline's own, which is
            "euler" for all that are known by name.
        grid: "model", "uniform", "karras", "beta" or "logsnr", as `OnGrid`; default "model".
        quantize: hold the transformer and the large text encoders as "nf4" (by bitsandbytes),
            "int8" or "fp8" (by torchao); default none.
        offload: what waits on the CPU for its turn: "model" is whole models, "group" layers that
            are fetched ahead, "sequential" single layers; default "none".
        lora: adapters, SOURCE or SOURCE@SCALE each, of a file, directory or hub repository.
        compile: compile the transformer's repeated blocks.
        attention: one of diffusers' attention backends, such as "flash" or "sage".
        parts: "all"; "text" for what encodes prompts, or "image" for all else, so that never both
            are in memory.

    Raises:
        InputError: for an unknown name, pipeline class, scheduler, grid, dtype, device or other
            setting, what needs a GPU without one or a package that is not installed, a missing
            file, or a revision where there is no repository.
        AsyncDiffError: if the repository is gated or cannot be reached, or a file is corrupted.
    """
    device, dtype = resolve_device(device, dtype)
    adapters = (lora,) if isinstance(lora, str) else tuple(lora)
    setup = Setup(quantize, offload or "none", adapters, compile, attention)
    setup.check(device)
    check_names(scheduler, grid)
    checkpoint = _checkpoint(model_path, quantize)
    entry, source, directory = find_pipeline(name, None if checkpoint else model_path)
    index, commit = _find_index(source, directory, revision)
    pipeline_class, adapter_class, components = read_index(index)
    family = adapter_class.family
    if entry is not None and entry.family != family:
        raise InputError(f"{source} holds a {pipeline_class.__name__}, which is not {entry.name}")

    check_choice("parts", parts, PARTS)
    # an adapter may belong to both parts, and diffusers adds it to the whole pipeline at once
    loaded = "all" if adapters else parts
    pipe = _load(source, index, commit, dtype, device, quantize, checkpoint, loaded)
    if scheduler is not None or grid is not None:
        own = scheduler or scheduler_name(pipe.scheduler)
        pipe.scheduler = make_scheduler(own, family, pipe.scheduler.config, grid)
    check_scheduler(pipe.scheduler, family)
    setup.add_lora(pipe)
    for component, kind in components.items():
        if not _wanted(component, kind, parts):
            setattr(pipe, component, None)
    setup.place(pipe, device)
    known = entry or anonymous_entry(name, family)
    return Backbone(pipe, known, adapter_class(pipe), dtype, directory, commit, checkpoint, setup)


def load_choice(
    choice: ModelChoice, device: torch.device | str | None = None, parts: str = "all"
) -> Backbone:
    """As `load_backbone`, of what a user has asked for.

    Args:
        device: in place of the choice's.
    """
    options = {key: value for key, value in vars(choice).items() if key != "backbone"}
    return load_backbone(choice.name, **{**options, "device": device or choice.device}, parts=parts)


def fetch(choice: ModelChoice) -> BackboneEntry:
    """Download what `load_choice` reads, if it is not on the disk; what is known of the backbone.

    Raises:
        InputError, AsyncDiffError: as `load_backbone`.
    """
    checkpoint = _checkpoint(choice.model_path, choice.quantize)
    entry, source, directory = find_pipeline(choice.name, None if checkpoint else choice.model_path)
    index, commit = _find_index(source, directory, choice.revision)
    pipeline_class, adapter_class, _ = read_index(index)
    if directory is None:
        with _hub_errors(source):
            pipeline_class.download(source, revision=commit)
    return entry or anonymous_entry(choice.name, adapter_class.family)


GGUF = ".gguf"
SINGLE_FILES = (".safetensors", ".sft", GGUF)
PARTS = ("all", "text", "image")


def _checkpoint(model_path: str | Path | None, quantize: str | None) -> Path | None:
    """The path if it is that of a single file, and None for a directory.

    Raises:
        InputError: for a file of another kind, or GGUF, which is quantized, to be quantized again
            or without its package.
    """
    path = None if model_path is None else Path(model_path).expanduser()
    if path is None or not path.is_file():
        return None
    if path.suffix not in SINGLE_FILES:
        raise InputError(f"{path} is not a model: single files end in {', '.join(SINGLE_FILES)}")
    if path.suffix == GGUF and quantize is not None:
        raise InputError(f"{path} is quantized already: leave out --quantize {quantize}")
    if path.suffix == GGUF and find_spec("gguf") is None:
        raise InputError(f"{path} needs gguf: pip install gguf")
    return path


def _find_index(
    source: str, directory: Path | None, revision: str | None
) -> tuple[Path, str | None]:
    """The file that names a pipeline's components, and the commit that it is of."""
    if directory is None:
        with _hub_errors(source):
            index = Path(hf_hub_download(source, "model_index.json", revision=revision))
        return index, index.parent.name  # the cache names each snapshot's folder by its commit
    if revision is not None:
        raise InputError(f"a revision belongs to a repository, and {directory} is a directory")
    return directory / "model_index.json", None


def _load(
    source: str,
    index: Path,
    commit: str | None,
    dtype: torch.dtype,
    device: torch.device,
    quantize: str | None,
    checkpoint: Path | None,
    parts: str,
) -> Any:
    """The pipeline, on the CPU but for what is quantized on the GPU."""
    pipeline_class, _, components = read_index(index)
    wanted = {name: kind for name, kind in components.items() if _wanted(name, kind, parts)}
    given: dict[str, Any] = {name: None for name in components if name not in wanted}
    large = {name: str(kind[0]) for name, kind in wanted.items() if _is_large(name, kind)}
    on_gpu = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with on_gpu, _hub_errors(source), _weight_errors(source), warnings.catch_warnings():
        # `dtype` replaces `torch_dtype` in the newest diffusers; older ones would ignore it
        warnings.filterwarnings("ignore", message=".*torch_dtype.*")
        if checkpoint is not None and "transformer" in wanted:
            del large["transformer"]
            given["transformer"] = _load_transformer(
                wanted["transformer"][1], checkpoint, source, commit, dtype, quantize
            )
        if quantize is not None and large:
            given["quantization_config"] = quantization(quantize, dtype, large)
        pipe = pipeline_class.from_pretrained(source, torch_dtype=dtype, revision=commit, **given)
        modules = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
        if any(parameter.is_meta for module in modules for parameter in module.parameters()):
            raise ValueError("weights are missing")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _wanted(name: str, kind: list[str | None], parts: str) -> bool:
    """Whether a component is there, and of these parts of the pipeline."""
    of_text = name.startswith(("text_encoder", "tokenizer"))
    return any(kind) and (parts == "all" or name == "scheduler" or of_text == (parts == "text"))


def _is_large(name: str, kind: list[str | None]) -> bool:
    """Whether a component is worth quantizing: CLIP and the VAE are not."""
    is_encoder = name.startswith("text_encoder") and not str(kind[1]).startswith("CLIP")
    return name == "transformer" or is_encoder


def _load_transformer(
    class_name: str | None,
    checkpoint: Path,
    source: str,
    commit: str | None,
    dtype: torch.dtype,
    quantize: str | None,
) -> Any:
    """A transformer out of a file of its own, in diffusers' layout or the original one."""
    own = None
    if checkpoint.suffix == GGUF:
        own = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    elif quantize is not None:
        mapping = quantization(quantize, dtype, {"transformer": "diffusers"}).quant_mapping
        own = mapping["transformer"]
    return getattr(diffusers, str(class_name)).from_single_file(
        str(checkpoint),
        config=source,
        config_revision=commit,
        subfolder="transformer",
        torch_dtype=dtype,
        quantization_config=own,
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


def read_index(index: Path) -> tuple[Any, type[Adapter], dict[str, list[str | None]]]:
    """The pipeline's class, its adapter's, and the library and class of each component."""
    try:
        values = json.loads(index.read_text(encoding="utf-8"))
        class_name = values["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise AsyncDiffError(f"{index} is corrupted: it does not name a pipeline class") from None
    for pipeline_class, adapter_class in ADAPTERS.items():
        if pipeline_class.__name__ == class_name:
            kinds = {name: value for name, value in values.items() if isinstance(value, list)}
            return pipeline_class, adapter_class, kinds
    raise InputError(_unknown_pipeline(class_name))


def _unknown_pipeline(class_name: str) -> str:
    return unknown_pipeline(class_name, [c.__name__ for c in ADAPTERS])


def anonymous_entry(name: str, family: str) -> BackboneEntry:
    """A pipeline without a name: the settings of the first backbone of its family, and its own
    size, licence and negative prompt.

    Raises:
        InputError: for a family without a backbone.
    """
    known = (e for e in REGISTRY.values() if e.family == family and e.repo is not None)
    model = next(known, None)
    if model is None:
        raise InputError(
            f"there are no defaults for the family {family!r}: put a BackboneEntry with its"
            " repository into asyncdiff_cli.engine.REGISTRY"
        )
    own: dict[str, Any] = {"repo": None, "size": None, "licence": "its own", "licence_url": None}
    return replace(model, name=name, gated=False, negative_prompt=None, **own)


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
