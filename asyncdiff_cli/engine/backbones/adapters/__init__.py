"""What differs between model families, made of a diffusers pipeline's own components and methods.

A family that is not here is added by a subclass of `Adapter` in `ADAPTERS`, and its defaults in
`REGISTRY`; docs/extend.md shows one.
"""

from __future__ import annotations

from typing import Any

from diffusers import (
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxKontextPipeline,
    FluxPipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    ZImagePipeline,
)

from asyncdiff_cli.engine.backbones.adapters.base import (
    Adapter,
    Denoiser,
    Guidance,
    PackedAdapter,
    TextConditions,
)
from asyncdiff_cli.engine.backbones.adapters.conditioning import ConditioningTime, ConditioningTimes
from asyncdiff_cli.engine.backbones.adapters.flux import FluxAdapter, FluxKontextAdapter
from asyncdiff_cli.engine.backbones.adapters.flux2 import Flux2Adapter, Flux2KleinAdapter
from asyncdiff_cli.engine.backbones.adapters.qwen_image import QwenImageAdapter
from asyncdiff_cli.engine.backbones.adapters.sd3 import SD3Adapter
from asyncdiff_cli.engine.backbones.adapters.z_image import ZImageAdapter
from asyncdiff_cli.engine.checks import unknown_pipeline
from asyncdiff_cli.engine.errors import InputError

__all__ = [
    "ADAPTERS",
    "Adapter",
    "ConditioningTime",
    "ConditioningTimes",
    "Denoiser",
    "Flux2Adapter",
    "Flux2KleinAdapter",
    "FluxAdapter",
    "FluxKontextAdapter",
    "Guidance",
    "PackedAdapter",
    "QwenImageAdapter",
    "SD3Adapter",
    "TextConditions",
    "ZImageAdapter",
    "classes_of",
]

ADAPTERS: dict[Any, type[Adapter]] = {
    StableDiffusion3Pipeline: SD3Adapter,
    FluxPipeline: FluxAdapter,
    FluxKontextPipeline: FluxKontextAdapter,
    Flux2Pipeline: Flux2Adapter,
    Flux2KleinPipeline: Flux2KleinAdapter,
    QwenImagePipeline: QwenImageAdapter,
    ZImagePipeline: ZImageAdapter,
}
"""The adapter of each pipeline class. A new one may be put in before a backbone is loaded."""


def classes_of(class_name: str) -> tuple[Any, type[Adapter]]:
    """A pipeline's class and its adapter's, by the name of the former.

    Raises:
        InputError: for one that has no adapter.
    """
    for pipeline_class, adapter_class in ADAPTERS.items():
        if pipeline_class.__name__ == class_name:
            return pipeline_class, adapter_class
    raise InputError(unknown_pipeline(class_name, [kind.__name__ for kind in ADAPTERS]))
