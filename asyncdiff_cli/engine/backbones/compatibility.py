"""What of a model's settings cannot be, or not together, told before anything heavy is imported."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from asyncdiff_cli.engine.backbones.choice import ModelChoice, ModelSettings
from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.backbones.presence import (
    check_revision,
    find_checkpoint,
    find_pipeline,
)
from asyncdiff_cli.engine.backbones.registry import OFFLOADS, QUANTIZATIONS, REGISTRY
from asyncdiff_cli.engine.checks import check_choice, check_size
from asyncdiff_cli.engine.dtypes import DTYPES, check_computes, check_device
from asyncdiff_cli.engine.errors import InputError

PACKAGES = {"nf4": "bitsandbytes", "int8": "torchao", "fp8": "torchao"}
"""What each of `QUANTIZATIONS` needs."""


def check_asked(choice: ModelChoice) -> None:
    """All that a user asks of a model can be, as far as names, the disk and packages tell.

    Raises:
        InputError: for what cannot.
    """
    choice.check()
    checkpoint = find_checkpoint(choice.model_path, choice.quantize)
    if choice.backbone is not None:  # else an image or a recipe may name it
        place = None if checkpoint else choice.model_path
        check_revision(find_pipeline(choice.name, place)[-1], choice.revision)
    if choice.device is not None:
        check_device(choice.device)
    device = choice.device and choice.device.partition(":")[0]
    if device is not None and choice.dtype is not None:
        check_computes(device, choice.dtype)
    check_settings(choice, device, choice.dtype)


def check_known_size(choice: ModelChoice, height: int, width: int) -> None:
    """A size in pixels is one that a backbone of the registry draws; of others nothing is known.

    Raises:
        InputError: if not, with a size that it draws.
    """
    entry = REGISTRY.get(choice.name)
    whole = choice.model_path is not None and not choice.model_path.is_file()
    if entry is not None and entry.size_multiple is not None and not whole:
        check_size(height, width, entry.size_multiple, entry.largest_size)


def check_settings(settings: ModelSettings, device_type: str | None, dtype: str | None) -> None:
    """The settings are known, their packages installed, and they go together.

    Args:
        device_type: "cpu" or "cuda"; None while it is not known.
        dtype: one of `DTYPES`; None while it is not known.

    Raises:
        InputError: if not.
    """
    offload, on_cpu = settings.offload or "none", device_type == "cpu"
    for text in settings.lora:
        LoRA.parse(text)
    if settings.lora and find_spec("peft") is None:
        raise InputError("--lora needs peft: pip install peft")
    check_choice("offload", offload, OFFLOADS)
    if offload != "none" and on_cpu:
        raise InputError(f"--offload {offload} frees a GPU, and the device is the CPU")
    if settings.attention is not None:
        check_choice("attention", settings.attention, attention_backends())
    if settings.compile and offload in ("group", "sequential"):
        raise InputError(
            f"--compile takes whole blocks, and --offload {offload} moves what is in them;"
            " use --offload model"
        )
    if settings.quantize is not None:
        _check_quantize(settings, settings.quantize, on_cpu, dtype)


def _check_quantize(
    settings: ModelSettings, quantize: str, on_cpu: bool, dtype: str | None
) -> None:
    check_choice("quantize", quantize, QUANTIZATIONS)
    package = PACKAGES[quantize]
    if find_spec(package) is None:
        raise InputError(f"--quantize {quantize} needs {package}: pip install {package}")
    if quantize == "nf4" and on_cpu:
        raise InputError("--quantize nf4 needs a GPU; on a CPU use int8 or fp8")
    if quantize == "int8" and dtype is not None and DTYPES.get(dtype) == DTYPES["fp16"]:
        # torchao multiplies by the 8-bit integers, and by their scale afterwards
        raise InputError(
            "--quantize int8 overflows in fp16: give --dtype bf16 with it, or use fp8 or nf4"
        )
    if settings.offload == "sequential":
        raise InputError(
            "--offload sequential moves single layers, which quantized weights do not allow;"
            " use --offload model or group"
        )
    if settings.lora and quantize != "nf4":
        raise InputError(f"--lora cannot be added to {quantize} weights; use --quantize nf4")


@cache
def attention_backends() -> tuple[str, ...]:
    """The names of diffusers' attention backends, read in its source: to import it takes seconds.

    Raises:
        InputError: if diffusers is not installed.
    """
    found = find_spec("diffusers")
    if found is None or found.origin is None:
        raise InputError("diffusers is not installed: pip install diffusers")
    path = Path(found.origin).parent / "models" / "attention_dispatch.py"
    return tuple(
        str(entry.value.value)
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.ClassDef) and node.name == "AttentionBackendName"
        for entry in node.body
        if isinstance(entry, ast.Assign) and isinstance(entry.value, ast.Constant)
    )
