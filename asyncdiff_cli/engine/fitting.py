"""Whether the model that is asked for fits where it is to run, said before it is loaded."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from asyncdiff_cli.engine import memory
from asyncdiff_cli.engine.backbones import DTYPES, resolve_device
from asyncdiff_cli.engine.planning import Batch
from asyncdiff_cli.engine.registry import GGUF, BackboneEntry
from asyncdiff_cli.engine.requests import ModelChoice
from asyncdiff_cli.engine.setup import Setup
from asyncdiff_cli.engine.sources import configuration, default_pixels, source_of
from asyncdiff_cli.engine.tracing import Work


def largest(batches: Iterable[Batch], entry: BackboneEntry) -> Work:
    """The batch of a plan that takes the most memory."""
    batch = max(batches, key=lambda b: len(b.drawn) * b.settings.height * b.settings.width)
    own = batch.settings
    negative = own.negative_prompt or entry.negative_prompt
    size = own.height, own.width
    tokens = own.max_sequence_length
    return Work(len(batch.drawn), *size, own.guidance_scale, negative is not None, tokens)


def squares(
    choice: ModelChoice, batch: int, pixels: int | None, guidance_scale: float | None
) -> Work:
    """So many images of an evaluation or a training; None is the backbone's default.

    Raises:
        InputError, AsyncDiffError: as `find_source`.
    """
    source = source_of(choice)
    entry, side = source.entry, pixels or default_pixels(source)
    guidance = entry.guidance_scale if guidance_scale is None else guidance_scale
    negative = entry.negative_prompt is not None
    return Work(batch, side, side, guidance, negative, entry.max_sequence_length)


def advise(
    choice: ModelChoice,
    work: Work,
    device: torch.device | str | None = None,
    encode_first: bool = False,
    company: memory.Company = memory.ALONE,
) -> str | None:
    """One line about a model that will not fit, which names the options that would; else None.

    It says nothing of what it cannot estimate: GGUF files, and pipelines that cannot be traced.

    Args:
        device: in place of the choice's.
        encode_first: whether the text encoders are gone before the rest is loaded.
        company: the rewards that are to fit beside it; on a CPU they are in its memory already.
    """
    where, _ = resolve_device(device or choice.device, choice.dtype)
    try:
        source = source_of(choice)
        where, dtype = resolve_device(where, choice.dtype, source.entry)
        if source.checkpoint is not None and source.checkpoint.suffix == GGUF:
            return None
        return memory.advice(
            source.entry.name,
            configuration(source),
            where,
            dtype,
            work,
            Setup.of(choice),
            # with adapters both parts are read whole, and nf4 is made on the GPU
            encode_first and not (choice.lora and choice.quantize == "nf4"),
            company if where.type == "cuda" else memory.ALONE,
            half=DTYPES[source.entry.dtype],
        )
    except Exception:  # an estimate is no reason to stop; what is wrong, loading says
        return None
