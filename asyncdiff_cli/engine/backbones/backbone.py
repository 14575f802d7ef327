"""The backbones that are known by name, and how to load these or any other flow pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from asyncdiff_cli.engine.backbones.adapters import ADAPTERS, Adapter
from asyncdiff_cli.engine.backbones.choice import ModelChoice, RecordedSettings
from asyncdiff_cli.engine.backbones.fingerprint import fingerprint
from asyncdiff_cli.engine.backbones.loading import (
    PARTS,
    check_checkpoint,
    check_net_fits,
    is_part,
    read_pipeline,
    transformer_config,
)
from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.registry import BackboneEntry, anonymous_entry
from asyncdiff_cli.engine.backbones.schedulers import (
    check_scheduler,
    class_scheduler_name,
    grid_name,
    make_scheduler,
    scheduler_name,
)
from asyncdiff_cli.engine.backbones.setup import Setup
from asyncdiff_cli.engine.checks import check_choice, check_size, unknown_pipeline
from asyncdiff_cli.engine.dtypes import dtype_name
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import expanded


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
    def location(self) -> str:
        """Its name, or its directory from anywhere where that is its name."""
        named = self.directory is not None and expanded(self.name) == self.directory
        return str(self.directory.absolute()) if self.directory and named else self.name

    @property
    def device(self) -> torch.device:
        return self.pipe._execution_device

    @property
    def device_name(self) -> str:
        """The GPU's own name, or "cpu"."""
        device = self.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    @property
    def scheduler(self) -> str:
        """The scheduler's name, as `load_backbone` takes it."""
        return scheduler_name(self.pipe.scheduler)

    @property
    def grid(self) -> str:
        """The grid's name, as `load_backbone` takes it."""
        return grid_name(self.pipe.scheduler)

    @property
    def recorded(self) -> dict[str, Any]:
        """What of its settings a picture's record holds: those of `RecordedSettings`."""
        return {
            **{name: getattr(self.setup, name) for name in RecordedSettings.model_fields},
            "scheduler": self.scheduler,
            "grid": self.grid,
            "dtype": dtype_name(self.dtype),
            "lora": tuple(LoRA.parse(text).absolute() for text in self.setup.lora),
        }

    @property
    def size(self) -> int:
        """Default height and width in pixels."""
        return self.entry.size or self.adapter.default_size

    def check_size(self, height: int, width: int) -> None:
        """Images of this height and width, in pixels, can be drawn.

        Raises:
            InputError: if not, with a size that can.
        """
        check_size(height, width, self.adapter.size_multiple, self.adapter.largest_size)

    @cached_property
    def fingerprint(self) -> str | None:
        """SHA-256 over the names and bytes of the local weight and JSON files, if there are any."""
        return fingerprint(self.directory, self.checkpoint, self.setup.lora)


def backbone_from_pipeline(pipe: Any) -> Backbone:
    """A backbone of a pipeline that is already loaded, on its own device and in its own dtype.

    Args:
        pipe: of a class in `ADAPTERS`: `StableDiffusion3Pipeline`, `FluxPipeline`, … Its text
            encoders may be None if `sample` is given embeddings. Its scheduler is used as it is.

    Raises:
        InputError: for another class, or a scheduler that cannot integrate a flow.

    Example:
        >>> pipe = load_backbone("mini", device="cpu").pipe  # or any loaded pipeline
        >>> backbone_from_pipeline(pipe).adapter.family
        'sd3'
    """
    for pipeline_class, adapter_class in ADAPTERS.items():
        if type(pipe) is pipeline_class:
            adapter = adapter_class(pipe)
            check_scheduler(pipe.scheduler, adapter.family)
            entry = anonymous_entry(type(pipe).__name__, adapter.family)
            return Backbone(pipe, entry, adapter, pipe.transformer.dtype)
    raise InputError(unknown_pipeline(type(pipe).__name__, [c.__name__ for c in ADAPTERS]))


def load_backbone(
    name: str | Path,
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
    **more: Any,
) -> Backbone:
    """Load a backbone. Everything that can be refused is refused before weights are read.

    Args:
        name: a name of `REGISTRY`, a diffusers pipeline directory, or a repository of one.
        dtype: default the backbone's on CUDA, fp16 or bf16, and fp32 on the CPU. A string may be
            "fp16", "bf16", "fp32" or torch's own name. Under fp16 transformers keeps the layers of
            T5 that would overflow in fp32.
        device: default CUDA where there is one, else the CPU.
        revision: branch, tag or commit of the repository.
        model_path: load the backbone `name` from this directory instead of its repository; or its
            transformer from this .safetensors or .gguf file, and the rest as without it.
        scheduler: "euler", "heun", "dpmpp" or "unipc"; default "model", the pipeline's own, which
            is "euler" for all that are known by name.
        grid: "model", "uniform", "karras", "beta" or "logsnr", as `OnGrid`; default "model".
        quantize: hold the transformer and the large text encoders as "nf4" (by bitsandbytes),
            "int8" or "fp8" (by torchao); default "none".
        offload: what waits on the CPU for its turn: "model" is whole models, "group" layers that
            are fetched ahead, "sequential" single layers; default "none".
        lora: adapters, SOURCE or SOURCE@SCALE each, of a file, directory or hub repository; the
            scale is in [-10, 10], default 1.
        compile: compile the transformer's repeated blocks.
        attention: one of diffusers' attention backends, such as "flash" or "sage"; default "none",
            which leaves it to diffusers.
        parts: "all"; "text" for what encodes prompts, or "image" for all else, so that never both
            are in memory.
        more: any other field of `ModelChoice`.

    Raises:
        InputError: for an unknown name, pipeline class, scheduler, grid, dtype, device or other
            setting, what needs a GPU without one or a package that is not installed, a missing
            file, or a revision where there is no repository.
        AsyncDiffError: if the repository is gated or cannot be reached, or a file is corrupted.

    Example:
        >>> backbone = load_backbone("mini", device="cpu", scheduler="dpmpp")
        >>> backbone.size, backbone.dtype, backbone.scheduler
        (128, torch.float32, 'dpmpp')
    """
    check_choice("parts", parts, PARTS)
    choice = ModelChoice.parse(
        backbone=str(name),
        revision=revision,
        model_path=model_path,
        scheduler=scheduler,
        grid=grid,
        quantize=quantize,
        offload=offload,
        lora=(lora,) if isinstance(lora, str) else tuple(lora),
        compile=compile,
        attention=attention,
        **more,
    )
    return load_outline(Outline.of(choice, device, dtype), parts)


def load_outline(outline: Outline, parts: str = "all") -> Backbone:
    """Load a backbone that was looked up.

    Args:
        parts: as of `load_backbone`.

    Raises:
        InputError, AsyncDiffError: as `load_backbone`.
    """
    source, choice = outline.source, outline.choice
    if choice.scheduler is None:
        class_scheduler_name(source.components["scheduler"][1])
    check_checkpoint(source)
    check_net_fits(source)
    try:
        pipe = _load(outline, parts)
    except torch.OutOfMemoryError:
        raise AsyncDiffError(
            f"out of memory while loading {choice.name}: use --quantize or --offload, or a GPU with"
            " more"
        ) from None
    family = source.adapter_class.family
    if choice.scheduler is not None or choice.grid is not None:
        solver = choice.scheduler or scheduler_name(pipe.scheduler)
        pipe.scheduler = make_scheduler(solver, family, pipe.scheduler.config, choice.grid)
    check_scheduler(pipe.scheduler, family)
    return Backbone(
        pipe,
        source.entry,
        source.adapter_class(pipe),
        outline.dtype,
        source.directory,
        source.revision,
        source.checkpoint,
        outline.setup,
    )


def _load(outline: Outline, parts: str) -> Any:
    """The pipeline where it is to run, with None for what is not of these parts."""
    source, setup, device = outline.source, outline.setup, outline.device
    # an adapter may belong to both parts, and diffusers adds it to the whole pipeline at once
    read = "all" if setup.lora else parts
    pipe = read_pipeline(source, outline.dtype, device, setup.quantize, read)
    setup.add_lora(pipe)
    for component in source.components:
        if not is_part(component, parts):
            setattr(pipe, component, None)
    setup.place(pipe, device)
    if parts == "text" and "text_encoder_3" in source.absent:
        # without T5, SD3 pads its text to the width that the transformer's configuration has
        pipe.transformer = SimpleNamespace(config=transformer_config(source))
    return pipe
