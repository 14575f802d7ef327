"""The first evaluation, made once for images that begin alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.sampling.loop import Velocity


def shared_first(
    field: Callable[[TextConditions], Velocity], text: TextConditions, latents: Tensor
) -> Velocity | None:
    """The velocity of evaluation 0 that asks the model once for images of equal noise and text.

    There the model sees the same of them whatever their policies are: t*_0 is t_0 (Algorithm 2,
    line 2), and a policy that scales a velocity does so afterwards, image by image. The latents
    part with the first step at the latest, so later evaluations have nothing to share.

    The model runs on a smaller batch, whose last bits may be others than those of the whole one.

    Args:
        field: gives the velocity field of a text.
        latents: the noise, [B, …].

    Returns:
        None where no two images are equal.
    """
    alike = first_equal([latents, *text.tensors.values()])
    distinct = sorted(set(alike))
    if len(distinct) == len(latents):
        return None
    velocity, places = field(text.select(distinct)), [distinct.index(image) for image in alike]

    def first(latents: Tensor, timestep: Tensor, sigma: Tensor, cond_sigma: Tensor) -> Tensor:
        return velocity(latents[distinct], timestep, sigma, cond_sigma[distinct])[places]

    return first


def first_equal(tensors: Iterable[Tensor]) -> list[int]:
    """For each of B rows the first one that is equal to it in all tensors, [B, …] each."""
    equal = torch.stack(
        [torch.stack([(rows == row).flatten(1).all(1) for row in rows]) for rows in tensors]
    ).all(0)
    equal.fill_diagonal_(True)  # also where a row is NaN, which equals nothing
    return equal.int().argmax(1).tolist()
