"""Pictures from latents: a few at a time, each of which is made of finite numbers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.utils.modeling import get_state_dict_offloaded_model
from torch import Tensor

from asyncdiff_cli.engine.dtypes import dtype_name
from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning

SLICE = 4
"""Images of a rollout or an evaluation that a VAE decodes at once. Its activations are the largest
of all: 0.6 GiB for an image of 512×512 pixels in fp16."""

Decode = Callable[[Tensor], Tensor]
"""Latents [n, …] to images [n, 3, height, width] in about [-1, 1]."""


def decode_in_slices(
    pipe: Any, decode: Decode, latents: Tensor, output_type: str, at_once: int = SLICE
) -> Any:
    """Images of latents, as PIL images or a [B, 3, height, width] tensor in [0, 1] ("pt").

    A slice of `at_once` images that does not fit is halved. An image in which fp16 overflows is
    decoded again by itself in fp32, so that it does not depend on those beside it.

    Raises:
        AsyncDiffError: for an image with NaN or infinity, or if not even one fits.
    """
    images: list[Any] = []
    size = at_once
    while len(images) < len(latents):
        first = len(images)
        chunk = latents[first : first + size]
        decoded = _if_it_fits(functools.partial(_finite, pipe, decode, chunk, first))
        if decoded is not None:
            images += pipe.image_processor.postprocess(decoded, output_type=output_type)
        elif len(chunk) == 1:
            raise AsyncDiffError(
                "out of memory while decoding one image: use a smaller size, --offload or"
                " --quantize"
            )
        else:
            size = len(chunk) // 2
            torch.cuda.empty_cache()
    return torch.stack(images) if output_type == "pt" else images


def _if_it_fits(decode: Callable[[], Tensor]) -> Tensor | None:
    try:
        return decode()
    except torch.OutOfMemoryError:
        return None  # only now is what the traceback holds let go of


def _finite(pipe: Any, decode: Decode, latents: Tensor, first: int) -> Tensor:
    images = decode(latents)
    for n, good in enumerate(_are_finite(images)):
        if not good and pipe.vae.dtype is torch.float16:
            warnings.warn(
                "the VAE overflows in fp16: what came out with NaN or infinity was decoded again"
                " in fp32",
                AsyncDiffWarning,
                stacklevel=2,
            )
            with _in_fp32(pipe, latents.device):
                again = decode(latents[n : n + 1].float())
            good = all(_are_finite(again))
            images[n : n + 1] = again.clamp(-1, 1)  # which fp16 holds, and no picture is beyond
        if not good:
            dtype = dtype_name(pipe.vae.dtype)
            raise AsyncDiffError(
                f"NaN or infinity in image {first + n + 1} as it is decoded, though not in its"
                f" latents: the VAE's weights are damaged, or too large for {dtype}"
            )
    return images


def _are_finite(images: Tensor) -> list[bool]:
    return images.isfinite().flatten(1).all(1).tolist()


@contextmanager
def _in_fp32(pipe: Any, device: torch.device) -> Iterator[None]:
    """Have a VAE in fp32 in the place of the pipeline's own, whose weights may be anywhere."""
    own = pipe.vae
    pipe.vae = _whole(own).to(device, torch.float32)
    try:
        yield
    finally:
        pipe.vae = own


def _whole(vae: Any) -> Any:
    """A copy of a VAE without the hooks that move its weights, on the CPU."""
    with init_empty_weights():
        copy = type(vae).from_config(vae.config)
    copy.load_state_dict(get_state_dict_offloaded_model(vae), assign=True)
    vars(copy).update({k: v for k, v in vars(vae).items() if k.startswith(("use_", "tile_"))})
    return copy.eval()
