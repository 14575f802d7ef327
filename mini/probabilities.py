"""What the judge's logits are worth as probabilities, fitted on real scenes once it is trained.

A focal loss leaves the probability of a thing that is there far below one, and "exactly three" is a
product of three of them. Platt scaling (Platt, 1999; Guo et al., 2017) sets that right: a factor
for each kind of answer and an offset for presence, which become part of the last layers' weights.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from asyncdiff_cli.engine.rewards.world.judge import GRID, Found, JudgeNet, look
from mini.compose import Composer
from mini.scenes import Batch, Scenes
from mini.settings import Settings

NEAR = 1.5 / GRID  # of the side: what is found this near to a centre can stand for it

Pair = tuple[Tensor, Tensor]
"""Logits [N] of yes, or [N, classes], and what is true [N]."""


def scaled(judge: JudgeNet, scenes: Scenes, composer: Composer, settings: Settings) -> JudgeNet:
    """A copy of ``judge`` whose probabilities hold on real scenes of its own seed."""
    own, observed = settings.judge, []
    rng = random.Random(f"{own.seed}/probabilities")
    for _ in range(-(-own.fitted // own.batch)):
        truth = Batch.of([scenes.draw(rng) for _ in range(own.batch)])
        found, _ = look(judge, composer.render(truth.to(composer.device)))
        observed += [observe(each, truth[n : n + 1]) for n, each in enumerate(found)]
    judge = copy.deepcopy(judge)
    here, thing, colour, _ = torch.arange(judge.cell.out_channels).split(judge.sizes)
    ground, tint = torch.arange(judge.whole.out_features).split(judge.whole_sizes)
    for kind, layer, rows in (
        ("presence", judge.cell, here),
        ("thing", judge.cell, thing),
        ("colour", judge.cell, colour),
        ("ground", judge.whole, ground),
        ("ground_colour", judge.whole, tint),
    ):
        rescale(layer, rows, *fit(each[kind] for each in observed))
    return judge


def observe(found: Found, truth: Batch) -> dict[str, Pair]:
    """What is found in the picture of one scene, as logits, beside what it is.

    The strongest find near a centre stands for it and all others for nothing. A centre that has
    none is left out: no factor would bring it back.
    """
    shown = (truth.thing[0] >= 0).nonzero()[:, 0]
    across = (found.x[:, None] - truth.x[0, shown]).abs()
    down = (found.y[:, None] - truth.y[0, shown]).abs()
    seen = found.presence > 0
    near = (torch.maximum(across, down) < NEAR) & seen[:, None]
    stands = near & (near.cumsum(0) == 1)  # the strongest come first
    find, slot = stands.nonzero().unbind(1)
    item = shown[slot]
    looks, tint = truth.looks[0, item], truth.ground_colour
    known, patterned = looks >= 0, tint >= 0
    return {
        "presence": (found.presence[seen].logit(1e-12), stands.any(1)[seen].float()),
        "thing": (found.thing[find].log(), truth.thing[0, item]),
        "colour": (found.colour[find][known].log(), looks[known]),
        "ground": (found.ground[None].log(), truth.ground),
        "ground_colour": (found.ground_colour[None].log()[patterned], tint[patterned]),
    }


def fit(pairs: Iterable[Pair]) -> tuple[float, float]:
    """The factor and the offset of logits under which what is true is most probable."""
    logits, truth = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    logits = logits.double().clamp_min(-50)
    values = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([values], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        if logits.ndim == 1:
            yes = values[0] * logits + values[1]
            loss = functional.binary_cross_entropy_with_logits(yes, truth.double())
        else:
            loss = functional.cross_entropy(values[0] * logits, truth)
        loss.backward()
        return loss

    solver.step(closure)
    return tuple(values.tolist())


@torch.no_grad()
def rescale(layer: nn.Linear | nn.Conv2d, rows: Tensor, factor: float, offset: float) -> None:
    """Make the outputs ``rows`` of a layer ``factor`` times what they are, plus ``offset``."""
    layer.weight[rows] *= factor
    layer.bias[rows] = factor * layer.bias[rows] + offset
