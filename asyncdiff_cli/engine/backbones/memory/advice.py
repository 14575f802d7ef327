"""Whether a model fits where it is to run, and which options make it need less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from asyncdiff_cli.engine.backbones.memory.footprint import (
    ALONE,
    GIB,
    SMALL_MODEL,
    Company,
    Footprint,
    footprint,
    is_small,
)
from asyncdiff_cli.engine.backbones.memory.tracing import Work
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.registry import GGUF, OFFLOADS
from asyncdiff_cli.engine.backbones.setup import Setup
from asyncdiff_cli.engine.devices import TORCH_DTYPES
from asyncdiff_cli.engine.errors import InputError

ALLOWANCE = int(1.2 * GIB)
"""Bytes of a GPU to leave beside an estimate.

A caching allocator cannot use up its device: a large block fails although smaller ones that are
free would add up to it. transformers leaves as many bytes for that reason, and as an absolute value
for another: a share of the device would be too little of a small one and too much of a large one
(`caching_allocator_warmup`, huggingface/transformers#37436). The workspaces and kernels that cuBLAS
and cuDNN load at their first use come out of it too. The CUDA context does not: asking for the free
memory makes it.
"""

MEMORY_OPTIONS = (
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

DTYPE_NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
FEWER = 4
"""A smaller batch has a quarter of the images."""


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

    It names up to three choices, in the order of `MEMORY_OPTIONS`, each of which needs less than
    those before it and does without some option that they have. What does not work on the device,
    or keeps more on the CPU than there is memory, is no choice. The numbers contain `ALLOWANCE`.

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
    if is_small(directory, dtype) and sum(company.rewards) <= SMALL_MODEL:
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
        f"{name}{beside} needs about {_gib(needs(now, device))} in {DTYPE_NAMES[dtype]}{given}"
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
    """What takes less than now in one respect and more in none, in that order."""
    half = half if device.type == "cuda" else torch.bfloat16
    dtypes = dict.fromkeys([now.dtype, half if now.dtype is torch.float32 else now.dtype])
    bits = {None: 16, "int8": 8, "fp8": 8, "nf4": 4}
    seen = {(now.dtype, now.quantize, now.offload)}
    for quantize, offload in MEMORY_OPTIONS:
        quantize = quantize if bits[quantize] < bits[now.quantize] else now.quantize
        offload = max(offload, now.offload, key=OFFLOADS.index)
        for dtype in dtypes:
            if quantize == "int8" and dtype is torch.float16:
                dtype = torch.bfloat16  # in which it does not overflow
            choice = dtype, quantize, offload
            wanted = setup.model_copy(update={"quantize": quantize, "offload": offload})
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
        flags.append(f"--dtype {DTYPE_NAMES[footprint.dtype]}")
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


def evaluation_work(
    outline: Outline, batch: int, pixels: int | None, guidance_scale: float | None
) -> Work:
    """The work of so many images of an evaluation or a training; None is the backbone's default.

    Raises:
        InputError, AsyncDiffError: as `Outline.size`.
    """
    entry, side = outline.entry, pixels or outline.size
    guidance = entry.guidance(guidance_scale)
    negative = entry.negative_prompt is not None
    return Work(batch, side, side, guidance, negative, entry.max_sequence_length)


def advise(
    outline: Outline, work: Work, encode_first: bool = False, company: Company = ALONE
) -> str | None:
    """One line about a model that will not fit, which names the options that would; else None.

    It says nothing of what it cannot estimate: GGUF files, and pipelines that cannot be traced.

    Args:
        encode_first: whether the text encoders are gone before the rest is loaded.
        company: the rewards that are to fit beside it; on a CPU they are in its memory already.
    """
    source, choice, device = outline.source, outline.choice, outline.device
    if source.checkpoint is not None and source.checkpoint.suffix == GGUF:
        return None
    try:
        return advice(
            source.entry.name,
            outline.configuration,
            device,
            outline.dtype,
            work,
            outline.setup,
            # with adapters both parts are read whole, and nf4 is made on the GPU
            encode_first and not (choice.lora and choice.quantize == "nf4"),
            company if device.type == "cuda" else ALONE,
            half=TORCH_DTYPES[source.entry.dtype],
        )
    except Exception:  # an estimate is no reason to stop; what is wrong, loading says
        return None
