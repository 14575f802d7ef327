"""Weights in fewer bits: which components, by which library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import transformers
from diffusers import PipelineQuantizationConfig

T5_KEPT = r".*\.wo"
"""The layers of T5 that overflow in fp16: transformers keeps them in fp32 under it, but not from
torchao, which sees names that end in `.weight`."""
TORCHAO = ("int8", "fp8")
"""Kinds of weights that are tensor subclasses; they are fetched without a stream, which has not
been tried with them."""


def is_large(name: str, class_name: str) -> bool:
    """Whether a component is worth holding in fewer bits: CLIP and the VAE are not."""
    is_encoder = name.startswith("text_encoder") and not class_name.startswith("CLIP")
    return name == "transformer" or is_encoder


def kept_layers(class_name: str) -> list[str] | None:
    """Patterns of the layers of a component that are not quantized with it."""
    return [T5_KEPT] if class_name.startswith("T5") else None


def quantization(
    name: str, dtype: torch.dtype, components: Mapping[str, tuple[str, str]]
) -> PipelineQuantizationConfig:
    """How diffusers and transformers are to load the components in fewer bits.

    nf4 is bitsandbytes' (QLoRA, arXiv 2305.14314), int8 and fp8 are torchao's, of weights alone.

    Args:
        name: one of `QUANTIZATIONS`.
        dtype: what is computed in.
        components: of each name the library, "diffusers" or "transformers", and the class.
    """
    make = _nf4 if name == "nf4" else _torchao
    libraries = {"diffusers": diffusers, "transformers": transformers}
    mapping = {}
    for part, (library, class_name) in components.items():
        mapping[part] = make(libraries[library], name, dtype, kept_layers(class_name))
    return PipelineQuantizationConfig(quant_mapping=mapping)


def _nf4(library: Any, name: str, dtype: torch.dtype, kept: list[str] | None) -> Any:
    return library.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


def _torchao(library: Any, name: str, dtype: torch.dtype, kept: list[str] | None) -> Any:
    return library.TorchAoConfig(_torchao_kind(name), modules_to_not_convert=kept)


def _torchao_kind(name: str) -> Any:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[name]()


def quantize_loaded(transformer: Any, name: str) -> None:
    """Quantize by torchao what is loaded already: diffusers ignores it for single files."""
    from torchao.quantization import quantize_

    quantize_(transformer, _torchao_kind(name))
