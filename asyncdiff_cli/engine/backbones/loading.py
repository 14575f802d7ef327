"""A pipeline's weights: all or a part of them, in their dtype or in fewer bits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.configuration_utils import FrozenDict
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError
from safetensors.torch import load_file

from asyncdiff_cli.engine.backbones.control_nets import ControlNet, net_errors
from asyncdiff_cli.engine.backbones.load_reports import heeded
from asyncdiff_cli.engine.backbones.quantization import (
    TORCHAO,
    is_large,
    quantization,
    quantize_loaded,
)
from asyncdiff_cli.engine.backbones.registry import GGUF, SFT
from asyncdiff_cli.engine.backbones.setup import missing_weights
from asyncdiff_cli.engine.backbones.single_files import check_fits
from asyncdiff_cli.engine.backbones.source import Source, find_variant, pipeline_errors
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.text import one_line

PARTS = ("all", "text", "image")
QUANTIZED_FROM = 1 << 26
"""Bytes from which on a text encoder is quantized."""


def is_part(component: str, parts: str) -> bool:
    """Whether a component belongs to these parts of a pipeline."""
    of_text = component.startswith(("text_encoder", "tokenizer"))
    return parts == "all" or component == "scheduler" or of_text == (parts == "text")


def quantized_components(source: Source, parts: str = "all") -> dict[str, tuple[str, str]]:
    """Library and class of each component that is worth quantizing."""
    return {
        name: kind
        for name, kind in source.components.items()
        if is_part(name, parts)
        and is_large(name, kind[1])
        and (name == "transformer" or not _is_stand_in(source.index.parent / name))
    }


def _is_stand_in(encoder: Path) -> bool:
    """Whether a text encoder is as small as mini's for T5; of one that is yet to be downloaded,
    that it is not."""
    return 0 < sum(file.stat().st_size for file in encoder.glob("*.safetensors")) < QUANTIZED_FROM


def read_pipeline(
    source: Source, dtype: torch.dtype, device: torch.device, quantize: str | None, parts: str
) -> Any:
    """The pipeline, on the CPU but for what is quantized on the GPU.

    Args:
        parts: one of `PARTS`; the components of others are None.

    Raises:
        AsyncDiffError: if it cannot be downloaded, or a file is missing or corrupted.
    """
    missing = [name for name in source.components if not is_part(name, parts)]
    given: dict[str, Any] = dict.fromkeys((*source.absent, *missing))
    large = quantized_components(source, parts)
    on_gpu = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with on_gpu, pipeline_errors(source.location), _weight_errors(source.location), heeded():
        if source.checkpoint is not None and is_part("transformer", parts):
            del large["transformer"]
            given["transformer"] = _read_transformer(source, source.checkpoint, dtype, quantize)
        if source.control_net is not None and is_part("controlnet", parts):
            given["controlnet"] = _read_control_net(source.control_net, dtype)
        if quantize is not None and large:
            given["quantization_config"] = quantization(quantize, dtype, large)
        with warnings.catch_warnings():
            # `dtype` replaces `torch_dtype` in the newest diffusers; older ones would ignore it
            warnings.filterwarnings("ignore", message=".*torch_dtype.*")
            pipe = source.pipeline_class.from_pretrained(
                source.location,
                torch_dtype=dtype,
                revision=source.revision,
                variant=find_variant(source),
                **given,
            )
        if lacking := missing_weights(pipe):
            raise ValueError(f"weights are missing, such as {lacking[0]}")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _transformer_class(source: Source) -> Any:
    return getattr(diffusers, source.components["transformer"][1])


def transformer_config(source: Source) -> Any:
    """The configuration of a transformer that is not loaded."""
    with pipeline_errors(source.location), _weight_errors(source.location):
        config = _transformer_class(source).load_config(
            source.location, subfolder="transformer", revision=source.revision
        )
    return FrozenDict(config)


def check_net_fits(source: Source) -> None:
    """A control net is as wide as the transformer that it is for, as far as their files tell.

    Raises:
        InputError: if it is not.
    """
    net = source.control_net
    if net is None:
        return
    wanted, config = transformer_config(source), net.config
    for name in ("num_attention_heads", "attention_head_dim"):
        if getattr(config, name) != wanted[name]:
            raise InputError(
                f"--controlnet {net.place} is for another model: its {name} is"
                f" {getattr(config, name)}, and the transformer's {wanted[name]}"
            )


def _read_control_net(net: ControlNet, dtype: torch.dtype) -> Any:
    with net_errors(net.location), _weight_errors(net.location):
        return getattr(diffusers, net.class_name).from_pretrained(
            net.location, torch_dtype=dtype, revision=net.revision, use_safetensors=True
        )


def check_checkpoint(source: Source) -> None:
    """A transformer's own file holds the weights of this model, as far as its head tells.

    Raises:
        InputError: if it does not.
    """
    if source.checkpoint is not None:
        transformer_class = _transformer_class(source)
        with init_empty_weights():
            own = transformer_class.from_config(transformer_config(source)).state_dict()
        sizes = {name: tuple(weight.shape) for name, weight in own.items()}
        check_fits(source.checkpoint, sizes, transformer_class.__name__)


def _read_transformer(
    source: Source, checkpoint: Path, dtype: torch.dtype, quantize: str | None
) -> Any:
    """A transformer out of a file of its own, in diffusers' layout or the original one.

    Raises:
        InputError: if it does not hold the weights of this transformer.
    """
    own, weights = None, str(checkpoint)
    transformer_class = _transformer_class(source)
    if checkpoint.suffix == GGUF:
        own = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    with _unfit(checkpoint, transformer_class.__name__):
        transformer = transformer_class.from_single_file(
            # diffusers reads safetensors under one suffix only
            load_file(weights) if checkpoint.suffix == SFT else weights,
            config=source.location,
            config_revision=source.revision,
            subfolder="transformer",
            torch_dtype=dtype,
            quantization_config=own,
        )
        if lacking := [name for name, p in transformer.named_parameters() if p.is_meta]:
            raise ValueError(f"{lacking[0]} is missing")
    if quantize in TORCHAO:
        quantize_loaded(transformer, quantize)
    return transformer


@contextmanager
def _unfit(checkpoint: Path, class_name: str) -> Iterator[None]:
    """What diffusers runs into when it converts the weights of another model, as one line."""
    try:
        yield
    except (torch.OutOfMemoryError, AsyncDiffError, HfHubHTTPError, EntryNotFoundError):
        raise
    except Exception as error:  # its conversions look keys up and count blocks
        why = f" ({one_line(error)})" if isinstance(error, ValueError) else ""
        raise InputError(
            f"{checkpoint} does not hold the weights of this {class_name}{why}"
        ) from None


@contextmanager
def _weight_errors(source: str) -> Iterator[None]:
    """What diffusers and transformers raise for truncated, missing or mismatched weight files."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AsyncDiffError, HfHubHTTPError, EntryNotFoundError, GatedRepoError):
        raise
    except Exception as error:  # for files of another shape the libraries raise any class
        raise AsyncDiffError(
            f"the model in {source} is incomplete or corrupted, fetch it again ({one_line(error)})"
        ) from None
