"""How a pipeline is held and run: in fewer bits, in turns, compiled, with adapters."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _check_attention_backend_requirements,
)

from asyncdiff_cli.engine.backbones.choice import ModelSettings
from asyncdiff_cli.engine.backbones.compatibility import check_settings
from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.backbones.quantization import TORCHAO
from asyncdiff_cli.engine.dtypes import dtype_name
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.text import one_line

FP8_CAPABILITY = (8, 9)
"""The first CUDA architecture with 8-bit floating point, Ada."""


class Setup(ModelSettings):
    """What changes memory and speed; and, by LoRA, what is drawn."""

    offload: str = "none"
    """One of `OFFLOADS`."""

    @classmethod
    def of(cls, choice: ModelSettings) -> Setup:
        """What a user has asked for."""
        settings = {name: getattr(choice, name) for name in cls.model_fields}
        return cls(**{**settings, "offload": choice.offload or "none"})

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse what cannot work here, before anything is loaded.

        Raises:
            InputError: for an unknown name, a package or compiler that is not installed, what
                takes a GPU that there is not, or settings that exclude each other.
        """
        check_settings(self, device.type, dtype_name(dtype))
        if self.attention is not None:
            with _refused(f"--attention {self.attention}"):
                _check_attention_backend_requirements(AttentionBackendName(self.attention))
        if self.compile and device.type == "cpu" and shutil.which("c++") is None:
            raise InputError("--compile on a CPU needs a C++ compiler, and there is none here")
        if self.quantize == "fp8" and device.type == "cuda":
            found = torch.cuda.get_device_capability(device)
            if found < FP8_CAPABILITY:
                raise InputError(
                    f"--quantize fp8 needs a GPU of compute capability 8.9, and this has"
                    f" {'.'.join(map(str, found))}; use int8 or nf4"
                )

    def place(self, pipe: Any, device: torch.device) -> None:
        """Move a pipeline to its device, at once or in turns; parts of it may be missing."""
        transformer = pipe.transformer
        if self.attention is not None and transformer is not None:
            # diffusers makes it the default of all models, also of those that are loaded already
            before, _ = _AttentionBackendRegistry.get_active_backend()
            with _refused(f"--attention {self.attention}"):
                transformer.set_attention_backend(self.attention)
            _AttentionBackendRegistry.set_active_backend(before)
        _OFFLOAD[self.offload](pipe, device, self.quantize)
        if self.compile and transformer is not None:
            compile_blocks(transformer)

    def add_lora(self, pipe: Any) -> None:
        """Add the adapters to a whole pipeline."""
        adapters = [LoRA.parse(text) for text in self.lora]
        names = [f"lora{n}" for n in range(len(adapters))]
        for name, adapter in zip(names, adapters, strict=True):
            with _refused(f"--lora {adapter.source}"):
                file = adapter.local()
                adapter.check_fits(pipe, file)
                pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
                if lacking := missing_weights(pipe):
                    raise ValueError(f"it lacks weights, such as {lacking[0]}")
        if adapters:
            pipe.set_adapters(names, [adapter.scale for adapter in adapters])


@contextmanager
def _refused(option: str) -> Iterator[None]:
    """What diffusers says about an option as one line."""
    try:
        yield
    except (AsyncDiffError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # for files of another shape the libraries raise any class
        why = f"it has no {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{option} does not work here: {why}") from None


def missing_weights(pipe: Any) -> list[str]:
    """The names of weights that a pipeline's files were to hold, and did not."""
    return [
        f"{name}.{path}"
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module)
        for path, weight in part.named_parameters()
        if weight.is_meta
    ]


def compile_blocks(transformer: Any, backend: str = "inductor") -> None:
    """Compile each repeated block by itself, as diffusers does for the models that it names."""
    if not transformer._repeated_blocks:  # SD3 is not among them
        transformer._repeated_blocks = transformer._no_split_modules
    transformer.compile_repeated_blocks(fullgraph=True, backend=backend)


def _all_at_once(pipe: Any, device: torch.device, quantize: str | None) -> None:
    pipe.to(device)


def _by_model(pipe: Any, device: torch.device, quantize: str | None) -> None:
    pipe.enable_model_cpu_offload(device=device)


def _by_group(pipe: Any, device: torch.device, quantize: str | None) -> None:
    """Layer by layer, of which the next one is fetched on a stream while one runs."""
    pipe.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=device.type == "cuda" and quantize not in TORCHAO,
    )


def _by_layer(pipe: Any, device: torch.device, quantize: str | None) -> None:
    pipe.enable_sequential_cpu_offload(device=device)


_OFFLOAD: dict[str, Callable[[Any, torch.device, str | None], None]] = {
    "none": _all_at_once,
    "model": _by_model,
    "group": _by_group,
    "sequential": _by_layer,
}
