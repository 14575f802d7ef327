"""What a model takes on its device: its weights, however they are held, and what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers.hooks import HookRegistry
from torch import Tensor
from transformers import PreTrainedModel
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from asyncdiff_cli.engine.backbones import weights
from asyncdiff_cli.engine.backbones.memory.hollow import empty_adapter, hollow, kept_in_fp32
from asyncdiff_cli.engine.backbones.memory.tracing import Peak, Work, trace, without_data
from asyncdiff_cli.engine.backbones.quantization import is_large, kept_layers
from asyncdiff_cli.engine.backbones.setup import Setup
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.text import one_line

GIB = 1 << 30

SMALL_MODEL = GIB
"""Bytes of weights up to which a model is not worth an estimate."""
BLOCK = 64
"""Weights that share a scale in bitsandbytes' nf4."""


@dataclass(frozen=True)
class Component:
    """What one model of a pipeline takes on its device, in bytes."""

    name: str
    weights: int
    """All parameters and buffers."""
    group: int
    """The most that is there at once under `--offload group`."""
    layer: int
    """The largest layer's, which is there by itself under `--offload sequential`."""
    resident: int
    """What `--offload sequential` does not move."""
    activations: int
    """What it holds beside its weights while it runs, at most."""

    is_large: bool = False
    """Whether it is held in fewer bits, if any are."""

    @property
    def is_text(self) -> bool:
        """Whether it encodes prompts."""
        return self.name.startswith("text_encoder")


@dataclass(frozen=True)
class Company:
    """What scores the images on the same device, and how options that lower the peak are given."""

    rewards: tuple[int, ...] = ()
    """Bytes of each reward."""
    offload: bool = False
    """Whether they are there one at a time, while nothing is drawn."""
    offload_option: str = "--offload-rewards"
    batch_option: str = "--batch-size "

    @property
    def beside(self) -> int:
        """Bytes that are there all the time."""
        return 0 if self.offload else sum(self.rewards)

    @property
    def in_turns(self) -> int:
        """Bytes that are there while nothing is drawn."""
        return max(self.rewards, default=0) if self.offload else 0


ALONE = Company()


@dataclass(frozen=True)
class Footprint:
    """What a pipeline takes on its device."""

    components: tuple[Component, ...]
    dtype: torch.dtype
    quantize: str | None
    offload: str
    encode_first: bool
    """Whether the text encoders are gone before the rest is loaded."""
    batch: int = 1
    """Images at once."""
    company: Company = ALONE
    """The rewards, which come after the text encoders if these are encoded with first."""

    @property
    def weights(self) -> int:
        """Bytes of all models of the pipeline, on whatever device."""
        return sum(part.weights for part in self.components)

    @property
    def peak(self) -> int:
        """Bytes on the device at most, when each model runs in its turn."""
        if not self.encode_first:
            return self._peak_in_company(self.components)
        text = tuple(part for part in self.components if part.is_text)
        rest = tuple(part for part in self.components if not part.is_text)
        return max(self._peak(text), self._peak_in_company(rest))

    def _peak_in_company(self, parts: tuple[Component, ...]) -> int:
        drawing = self._peak(parts) + self.company.beside
        stays = {
            "none": sum(part.weights for part in parts),
            "sequential": sum(part.resident for part in parts),
        }
        return max(drawing, stays.get(self.offload, 0) + self.company.in_turns)

    def _peak(self, parts: tuple[Component, ...]) -> int:
        if not parts:
            return 0
        running = self._running(parts)
        if self.quantize != "nf4":
            return running
        # bitsandbytes quantizes on the GPU, where all that it has made stays until it is placed
        return max(running, sum(part.weights for part in parts if part.is_large))

    def _running(self, parts: tuple[Component, ...]) -> int:
        if self.offload == "none":
            return sum(part.weights for part in parts) + max(part.activations for part in parts)
        if self.offload == "model":
            return max(part.weights + part.activations for part in parts)
        if self.offload == "group":
            return max(part.group + part.activations for part in parts)
        return sum(p.resident for p in parts) + max(p.layer + p.activations for p in parts)


def footprint(
    directory: Path,
    dtype: torch.dtype,
    work: Work,
    quantize: str | None = None,
    offload: str = "none",
    encode_first: bool = False,
    device: torch.device | str = "cuda",
) -> Footprint:
    """What a pipeline would take, by its configuration; takes a few seconds, and no weights.

    Args:
        directory: of a diffusers pipeline. Its weights need not be there.
        dtype: what it is loaded in.
        work: what is drawn at once.
        quantize: one of `QUANTIZATIONS`, or None.
        offload: one of `OFFLOADS`.
        device: its kind matters, since kernels differ; it need not be there.

    Raises:
        InputError: for a pipeline class that has no adapter.
        AsyncDiffError: for a directory that is incomplete, or a model that cannot be traced.
    """
    components = _survey(directory, dtype, work, torch.device(device).type)[quantize]
    return Footprint(components, dtype, quantize, offload, encode_first)


def is_small(directory: Path, dtype: torch.dtype) -> bool:
    """Whether the weights are not worth an estimate, by the headers of their files."""
    try:
        return weights.parameters(directory) * dtype.itemsize <= SMALL_MODEL
    except AsyncDiffError:  # none are there yet
        return False


@lru_cache(maxsize=8)
def _survey(
    directory: Path, dtype: torch.dtype, work: Work, kind: str
) -> Mapping[str | None, tuple[Component, ...]]:
    """The components of a pipeline for each way to hold their weights."""
    with without_data(torch.device(kind)):
        adapter = empty_adapter(directory, dtype)
        try:
            peaks = trace(adapter, work)
        except AsyncDiffError:
            raise
        except Exception as error:  # of a model that looks at its values, or of anyone's adapter
            kind = type(adapter).__name__
            raise AsyncDiffError(
                f"{directory} cannot be traced with its {kind} ({one_line(error)})"
            ) from None
    modules = {
        name: part
        for name, part in adapter.pipe.components.items()
        if isinstance(part, torch.nn.Module)
    }
    for part in modules.values():
        hollow(part)
    Setup(offload="group").place(adapter.pipe, torch.device("cpu"))
    return {
        quantize: tuple(
            _component(name, part, peaks.get(name, Peak(0, 0)), quantize)
            for name, part in modules.items()
        )
        for quantize in (None, *WEIGHT_BYTES)
    }


def _component(name: str, module: Any, peak: Peak, quantize: str | None) -> Component:
    in_fewer_bits = quantize is not None and is_large(name, type(module).__name__)
    held = held_bytes(module, quantize if in_fewer_bits else None)
    buffers = sum(held[id(buffer)] for buffer in module.buffers())
    direct = [
        sum(held[id(tensor)] for tensor in part.parameters(recurse=False))
        for part in module.modules()
    ]
    return Component(
        name,
        weights=sum(held.values()),
        group=_group_bytes(module, held),
        layer=max(direct),
        # accelerate leaves the buffers of a model on the device, unless the model itself has
        # parameters beside those of its layers
        resident=0 if module._parameters else buffers,
        activations=peak.dequantized if in_fewer_bits else peak.plain,
        is_large=is_large(name, type(module).__name__),
    )


def held_bytes(module: torch.nn.Module, quantize: str | None = None) -> dict[int, int]:
    """Bytes of each parameter and buffer of a model, by the tensor's `id`; a shared one is there
    once.

    Args:
        module: in the dtype that it would be loaded in.
        quantize: how its linear layers are held, one of `QUANTIZATIONS`, or None.
    """
    held = {id(tensor): tensor.nbytes for tensor in (*module.parameters(), *module.buffers())}
    if quantize is not None:
        for layer in quantized_layers(module, quantize):
            held[id(layer.weight)] = WEIGHT_BYTES[quantize](layer.weight)
    return held


def quantized_layers(module: torch.nn.Module, quantize: str) -> list[torch.nn.Linear]:
    """The layers of a model that its library holds in fewer bits, if it is told to.

    Those are the linear ones. diffusers leaves out what a model's class wants in fp32, and so does
    transformers, beside a model's last layer and what `kept_layers` names.
    """
    linear = {n: part for n, part in module.named_modules() if isinstance(part, torch.nn.Linear)}
    if isinstance(module, PreTrainedModel):
        own = kept_layers(type(module).__name__)
        kept = HfQuantizer.get_modules_to_not_convert(module, own, module._keep_in_fp32_modules)
        end = "" if quantize == "nf4" else ".weight"  # the names that its quantizers look at
        return [part for name, part in linear.items() if should_convert_module(name + end, kept)]
    in_fp32 = kept_in_fp32(module, torch.float16)
    return [part for name, part in linear.items() if not in_fp32 & set(name.split("."))]


def _nf4_bytes(weight: Tensor) -> int:
    """Half a byte each, an fp32 scale per block, and the table of the 16 values."""
    count = weight.numel()
    return -(-count // 2) + 4 * -(-count // BLOCK) + 16 * 4


def _int8_bytes(weight: Tensor) -> int:
    """A byte each, and per row an fp32 scale and an int8 zero point."""
    return weight.numel() + (4 + 1) * len(weight)


def _fp8_bytes(weight: Tensor) -> int:
    """A byte each, and an fp32 scale per row."""
    return weight.numel() + 4 * len(weight)


WEIGHT_BYTES = {"nf4": _nf4_bytes, "int8": _int8_bytes, "fp8": _fp8_bytes}


def _group_bytes(module: torch.nn.Module, held: Mapping[int, int]) -> int:
    """What is on the device at once where diffusers fetches groups of layers in turns, at most.

    A group is there while the module that fetches it runs, and so are those around it; and the
    next one may be on its way.
    """
    sizes = [0, 0]

    def within(part: torch.nn.Module) -> int:
        own = _fetched_bytes(part, held)
        sizes.append(own)
        return own + max(map(within, part.children()), default=0)

    return within(module) + sorted(sizes)[-2]


def _fetched_bytes(module: torch.nn.Module, held: Mapping[int, int]) -> int:
    """Size of the group that a module fetches when it starts, 0 if it does not."""
    hook = HookRegistry.check_if_exists_or_initialize(module).get_hook("group_offloading")
    if hook is None or hook.group.onload_leader is not module:
        return 0
    tensors = [*hook.group.parameters, *hook.group.buffers]
    for member in hook.group.modules:
        tensors += [*member.parameters(), *member.buffers()]
    return sum({id(tensor): held[id(tensor)] for tensor in tensors}.values())
