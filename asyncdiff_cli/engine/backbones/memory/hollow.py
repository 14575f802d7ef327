"""Models without their weights: made of configurations, in the dtypes of the weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils.weak import WeakIdKeyDictionary
from transformers import PreTrainedModel

from asyncdiff_cli.engine.backbones.adapters import ADAPTERS, Adapter
from asyncdiff_cli.engine.backbones.weights import PipelineIndex
from asyncdiff_cli.engine.checks import unknown_pipeline
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.reading import read_json
from asyncdiff_cli.engine.text import one_line


def empty_adapter(
    directory: Path, dtype: torch.dtype, parts: Container[str] | None = None
) -> Adapter:
    """A pipeline, with its adapter, as it would be loaded; call it within `without_data`.

    Args:
        directory: of a diffusers pipeline; its weights need not be there.
        dtype: what it is loaded in.
        parts: the components that are made, and are None otherwise; default all.

    Raises:
        InputError: for an index of another shape, or a pipeline class that has no adapter.
        AsyncDiffError: for a component that cannot be made of its configuration.
    """
    index = read_json(directory / "model_index.json", PipelineIndex)
    for pipeline_class, adapter_class in ADAPTERS.items():
        if pipeline_class.__name__ == index.class_name:
            own = {k: v for k, v in (index.model_extra or {}).items() if not k.startswith("_")}
            wanted = own if parts is None else parts
            made = {
                name: value
                if not isinstance(value, list)
                else _component(directory / name, *(value if name in wanted else (None, None)))
                for name, value in own.items()
            }
            for part in made.values():
                if isinstance(part, torch.nn.Module):
                    _cast(part, dtype)
            return adapter_class(pipeline_class(**made))
    raise InputError(unknown_pipeline(index.class_name, [kind.__name__ for kind in ADAPTERS]))


def _component(directory: Path, library: str | None, class_name: str | None) -> Any:
    if library is None or class_name is None:
        return None
    if not directory.is_dir():  # else its path would be asked for on the hub
        raise AsyncDiffError(f"there is no directory {directory}")
    try:
        kind = getattr(importlib.import_module(library), class_name)
        if not issubclass(kind, torch.nn.Module):  # schedulers and tokenizers read their values
            with unset_fake_temporarily(), torch.device("cpu"):
                return kind.from_pretrained(directory)
        if library == "diffusers":
            return kind.from_config(kind.load_config(directory)).eval()
        return kind(kind.config_class.from_pretrained(directory)).eval()
    except Exception as error:  # libraries raise any class for configurations of another shape
        raise AsyncDiffError(f"{directory} is not a {class_name} ({one_line(error)})") from None


def _cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give each tensor the dtype that `from_pretrained` loads it in."""
    kept = kept_in_fp32(module, dtype)

    def as_loaded(tensor: Tensor, path: list[str], is_stored: bool) -> Tensor:
        if not is_stored or not tensor.is_floating_point():
            return tensor
        return tensor.to(torch.float32 if kept & set(path) else dtype)

    _replace_tensors(module, as_loaded)


def hollow(module: torch.nn.Module) -> None:
    """Put real tensors in the place of a model's: of the same shapes and dtypes, but of one number.

    Unlike those without data they can be moved, or given away and put back, by any library.
    """
    _replace_tensors(
        module, lambda tensor, *_: torch.zeros([], dtype=tensor.dtype).expand(tensor.shape)
    )


def _replace_tensors(
    module: torch.nn.Module, replacement: Callable[[Tensor, list[str], bool], Tensor]
) -> None:
    """Replace parameters and buffers; layers that share one go on sharing it.

    Args:
        replacement: of a tensor, its path, and whether it is stored with the weights.
    """
    made: WeakIdKeyDictionary = WeakIdKeyDictionary()
    for prefix, part in module.named_modules():
        transient = part._non_persistent_buffers_set
        for store in (part._parameters, part._buffers):
            for name, tensor in store.items():
                if tensor is None:
                    continue
                if tensor not in made:
                    new = replacement(tensor, [*prefix.split("."), name], name not in transient)
                    is_parameter = store is part._parameters
                    made[tensor] = torch.nn.Parameter(new, False) if is_parameter else new
                store[name] = made[tensor]


def kept_in_fp32(module: torch.nn.Module, dtype: torch.dtype) -> set[str]:
    """Names of the layers that the library that the module is of holds in fp32 beside `dtype`.

    In transformers these depend on the dtype: for T5 they are its layers `wo`, which overflow in
    fp16. In diffusers they do not.
    """
    if isinstance(module, PreTrainedModel):
        return set(module._get_dtype_plan(dtype))
    return set(getattr(module, "_keep_in_fp32_modules", None) or ())
