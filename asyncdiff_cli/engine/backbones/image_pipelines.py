"""The diffusers pipelines that draw from an image, beside those that draw from text alone."""

from __future__ import annotations

from typing import Any

from diffusers import (
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxControlNetPipeline,
    FluxImg2ImgPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    QwenImageControlNetPipeline,
    QwenImageImg2ImgPipeline,
    QwenImagePipeline,
    StableDiffusion3ControlNetPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
    ZImageImg2ImgPipeline,
    ZImagePipeline,
)

from asyncdiff_cli.engine.errors import InputError

IMAGE_TO_IMAGE: dict[Any, Any] = {
    StableDiffusion3Pipeline: StableDiffusion3Img2ImgPipeline,
    FluxPipeline: FluxImg2ImgPipeline,
    QwenImagePipeline: QwenImageImg2ImgPipeline,
    ZImagePipeline: ZImageImg2ImgPipeline,
}
"""What begins with a noisy image in place of noise, and is made of the same components."""
EDITING: tuple[Any, ...] = (FluxKontextPipeline, Flux2Pipeline, Flux2KleinPipeline)
"""What looks at a whole image while it draws another one, as the prompt says."""

WITH_CONTROL_NET: dict[Any, Any] = {
    StableDiffusion3Pipeline: StableDiffusion3ControlNetPipeline,
    FluxPipeline: FluxControlNetPipeline,
    QwenImagePipeline: QwenImageControlNetPipeline,
}
"""What draws from noise with a control net beside the same components."""


def image_pipeline(pipeline_class: Any) -> Any:
    """The class that draws from an image with a pipeline's components.

    Raises:
        InputError: for a class of which there is none.
    """
    if pipeline_class in EDITING:
        return pipeline_class
    if pipeline_class not in IMAGE_TO_IMAGE:
        known = (kind.__name__ for kind in (*IMAGE_TO_IMAGE, *EDITING))
        raise InputError(
            f"a {pipeline_class.__name__} draws from no image: leave out --image, or use a model"
            f" of {', '.join(known)}"
        )
    return IMAGE_TO_IMAGE[pipeline_class]


def control_pipeline(pipeline_class: Any) -> Any:
    """The class that draws with a control net beside a pipeline's components.

    Raises:
        InputError: for a class of which there is none.
    """
    if pipeline_class not in WITH_CONTROL_NET:
        known = (kind.__name__ for kind in WITH_CONTROL_NET)
        raise InputError(
            f"a {pipeline_class.__name__} takes no control net: leave out --controlnet, or use a"
            f" model of {', '.join(known)}"
        )
    return WITH_CONTROL_NET[pipeline_class]
