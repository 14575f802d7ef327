"""Whether a model fits where it is to run, and which options make it need less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from diffusers.hooks import HookRegistry
from torch import Tensor
from transformers import PreTrainedModel
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from asyncdiff_cli.engine import weights
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.registry import OFFLOADS
from asyncdiff_cli.engine.setup import Setup, is_large, kept_layers
from asyncdiff_cli.engine.text import one_line
from asyncdiff_cli.engine.tracing import (
    Peak,
    Work,
    empty_adapter,
    hollow,
    kept_in_fp32,
    trace,
    without_data,
)

GIB = 1 << 30

SMALL = GIB
"""Bytes of weights up to which a model is not worth an estimate."""

ALLOWANCE = int(1.2 * GIB)
"""Bytes of a GPU to leave beside an estimate.

A caching allocator cannot use up its device: a large block fails although smaller ones that are
free would add up to it. transformers leaves as many bytes for that reason, and as an absolute value
for another: a share of the device would be too little of a small one and too much of a large one
(`caching_allocator_warmup`, huggingface/transformers#37436). The workspaces and kernels that cuBLAS
and cuDNN load at their first use come out of it too. The CUDA context does not: asking for the free
memory makes it.
"""

OPTIONS = (
    (None, "none"),
    (None, "model"),
    ("int8", "none"),
    ("nf4", "none"),
    ("int8", "model"),
    ("nf4", "model"),
    (None, "group"),
    ("nf4", "group"),
    (None, "sequential"),
)
"""What to try, `quantize` and `offload`, from what costs least.

First what changes no image and moves each model once per batch; then 8 and 4 bits, which change
images, at first by themselves and then in turns; then what moves all weights at every evaluation,
and last what does so layer by layer, waiting for each. 8 bits are int8, since fp8 takes as many
bytes and a newer GPU.
"""

DTYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
FEWER = 4
"""A smaller batch has a quarter of the images."""
BLOCK = 64
"""Weights that share a scale in bitsandbytes' nf4."""


@dataclass(frozen=True)
class Component:
    """What one model of a pipeline takes on its device, in bytes."""

    name: str
    weights: int
    """All parameters and buffers."""
    group: int
    """Those of them that are there at once under `--offload group`, at most."""
    layer: int
    """The largest layer's, which is there by itself under `--offload sequential`."""
    resident: int
    """Those that `--offload sequential` does not move."""
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
        return weights.parameters(directory) * dtype.itemsize <= SMALL
    except AsyncDiffError:  # none are there yet
        return False


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take of a GPU, or of the machine's memory for a CPU."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + cached


def advice(
    name: str,
    directory: Path,
    device: torch.device,
    dtype: torch.dtype,
    work: Work,
    setup: Setup = Setup(),  # noqa: B008 - it is frozen
    encode_first: bool = False,
    company: Company = ALONE,
    half: torch.dtype = torch.float16,
) -> str | None:
    """None if a pipeline fits; else one line that says what it needs, and what would fit.

    It names up to three choices, in the order of `OPTIONS`, each of which needs less than those
    before it and does without some option that they have. What does not work on the device, or
    keeps more on the CPU than there is memory, is no choice. The numbers contain `ALLOWANCE`.

    Args:
        name: what to call the pipeline.
        directory, device, dtype, work, encode_first: as for `footprint`.
        setup: how it is to be held; what it asks for stays in all choices.
        company: the rewards that are to fit beside it, on a GPU: smaller batches, and rewards that
            take turns, are choices then.
        half: what takes the place of fp32 on a GPU.

    Raises:
        InputError, AsyncDiffError: as `footprint`.
    """
    if is_small(directory, dtype) and sum(company.rewards) <= SMALL:
        return None

    def measure(
        dtype: torch.dtype, quantize: str | None, offload: str, batch: int, company: Company
    ) -> Footprint:
        own = replace(work, batch=batch)
        found = footprint(directory, dtype, own, quantize, offload, encode_first, device)
        return replace(found, batch=batch, company=company)

    now = measure(dtype, setup.quantize, setup.offload, work.batch, company)
    free = free_memory(device)
    if needs(now, device) <= free:
        return None
    choices = [(dtype, setup.quantize, setup.offload), *_choices(now, setup, device, half)]
    others = [
        measure(*choice, *relieved)
        for choice in choices
        for relieved in _relieved(now)
        if (*choice, *relieved) != (*choices[0], now.batch, now.company)
    ]
    host = free_memory(torch.device("cpu"))
    others = [other for other in others if other.offload == "none" or other.weights <= host]
    given = " ".join(["", "with", *_flags(now, None)]) if _flags(now, None) else ""
    beside = f" and rewards of {_gib(sum(company.rewards))}" if company.rewards else ""
    head = (
        f"{name}{beside} needs about {_gib(needs(now, device))} in {DTYPES[dtype]}{given}"
        f" and {device} has {_gib(free)} free"
    )
    fitting = [other for other in others if needs(other, device) <= free]
    if fitting:
        return f"{head}: {_join(_named(fitting, now, device))} would fit"
    if not others:
        return f"{head}: nothing needs less"
    least = min(others, key=lambda other: other.peak)
    return f"{head}: nothing fits; {_named([least], now, device)[0]} needs the least"


def _relieved(now: Footprint) -> list[tuple[int, Company]]:
    """Batches and rewards as they are, and with less on the device at once."""
    company = now.company
    if not company.rewards:
        return [(now.batch, company)]
    batches = dict.fromkeys([now.batch, -(-now.batch // FEWER)])
    companies = dict.fromkeys([company, replace(company, offload=True)])
    return [(batch, company) for company, batch in product(companies, batches)]


def needs(footprint: Footprint, device: torch.device) -> int:
    """Bytes that have to be free on the device."""
    return footprint.peak + (ALLOWANCE if device.type == "cuda" else 0)


def _choices(
    now: Footprint, setup: Setup, device: torch.device, half: torch.dtype
) -> Iterator[tuple[torch.dtype, str | None, str]]:
    """What takes less than now in one respect and more in none, in the order of `OPTIONS`."""
    half = half if device.type == "cuda" else torch.bfloat16
    dtypes = dict.fromkeys([now.dtype, half if now.dtype is torch.float32 else now.dtype])
    bits = {None: 16, "int8": 8, "fp8": 8, "nf4": 4}
    seen = {(now.dtype, now.quantize, now.offload)}
    for quantize, offload in OPTIONS:
        quantize = quantize if bits[quantize] < bits[now.quantize] else now.quantize
        offload = max(offload, now.offload, key=OFFLOADS.index)
        for dtype in dtypes:
            if quantize == "int8" and dtype is torch.float16:
                dtype = torch.bfloat16  # in which it does not overflow
            choice = dtype, quantize, offload
            wanted = replace(setup, quantize=quantize, offload=offload)
            if choice not in seen and _works(wanted, device, dtype):
                yield choice
            seen.add(choice)


def _works(setup: Setup, device: torch.device, dtype: torch.dtype) -> bool:
    try:
        setup.check(device, dtype)
    except InputError:
        return False
    return True


def _flags(footprint: Footprint, now: Footprint | None) -> list[str]:
    """The options that make it what it is, where they are not what they are now."""
    flags = []
    if now is not None and footprint.dtype != now.dtype:
        flags.append(f"--dtype {DTYPES[footprint.dtype]}")
    if footprint.quantize != (now and now.quantize):
        flags.append(f"--quantize {footprint.quantize}")
    if footprint.offload != (now.offload if now else "none"):
        flags.append(f"--offload {footprint.offload}")
    if footprint.company.offload != (now.company.offload if now else False):
        flags.append(footprint.company.offload_option)
    if now is not None and footprint.batch != now.batch:
        flags.append(f"{footprint.company.batch_option}{footprint.batch}")
    return flags


def _named(choices: list[Footprint], now: Footprint, device: torch.device) -> list[str]:
    """The first three choices, by their options, that the ones before do not make pointless."""
    named: list[str] = []
    used: list[set[str]] = []
    least = float("inf")
    for choice in choices:
        flags, size = _flags(choice, now), round(needs(choice, device) / GIB, 1)
        if len(named) < 3 and size < least and not any(other <= set(flags) for other in used):
            named.append(f"{' '.join(flags)} ({size} GiB)")
            used.append(set(flags))
            least = size
    return named


def _join(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


@lru_cache(maxsize=8)
def _survey(
    directory: Path, dtype: torch.dtype, work: Work, kind: str
) -> Mapping[str | None, tuple[Component, ...]]:
    """The components of a pipeline for each way to hold their weights."""
    with without_data(torch.device(kind)):
        adapter = empty_adapter(directory, dtype)
        try:
            peaks = trace(adapter, work)
        except RuntimeError as error:  # what a model computes decides about what it computes next
            raise AsyncDiffError(f"{directory} cannot be traced ({one_line(error)})") from None
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
    """Of the group that a module fetches when it starts, 0 if it does not."""
    hook = HookRegistry.check_if_exists_or_initialize(module).get_hook("group_offloading")
    if hook is None or hook.group.onload_leader is not module:
        return 0
    tensors = [*hook.group.parameters, *hook.group.buffers]
    for member in hook.group.modules:
        tensors += [*member.parameters(), *member.buffers()]
    return sum({id(tensor): held[id(tensor)] for tensor in tensors}.values())
