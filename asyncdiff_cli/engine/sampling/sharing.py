"""An evaluation that is made once for images that are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.sampling.loop import Velocity


def shared(field: Callable[[TextConditions], Velocity], text: TextConditions) -> Velocity:
    """The velocity that asks the model once for images of equal latents, times and text.

    In evaluation 0 these are all of equal noise, whatever their policies are: t*_0 is t_0
    (Algorithm 2, line 2), and a policy that scales a velocity does so afterwards, image by image.
    Later ones are alike where their policies have decided alike so far.

    The model runs on a smaller batch, whose last bits may be others than those of the whole one.

    Args:
        field: gives the velocity field of a text.
    """
    whole = field(text)

    def velocity(latents: Tensor, timestep: Tensor, sigma: Tensor, cond_sigma: Tensor) -> Tensor:
        alike = first_equal([latents, cond_sigma[:, None], *text.tensors.values()])
        distinct = sorted(set(alike))
        if len(distinct) == len(latents):
            return whole(latents, timestep, sigma, cond_sigma)
        evaluate, places = field(text.select(distinct)), [distinct.index(image) for image in alike]
        return evaluate(latents[distinct], timestep, sigma, cond_sigma[distinct])[places]

    return velocity


def first_equal(tensors: Iterable[Tensor]) -> list[int]:
    """For each of B rows the first one that is equal to it in all tensors, [B, …] each."""
    equal = torch.stack(
        [torch.stack([(rows == row).flatten(1).all(1) for row in rows]) for rows in tensors]
    ).all(0)
    equal.fill_diagonal_(True)  # also where a row is NaN, which equals nothing
    return equal.int().argmax(1).tolist()
