"""What the iterations of a training change, as a checkpoint keeps it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.drawing.canvas import BatchSize
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
from asyncdiff_cli.engine.rewards import GUARD
from asyncdiff_cli.engine.training.checkpoint import Checkpoint
from asyncdiff_cli.engine.training.early_stop import EarlyStop, Snapshot
from asyncdiff_cli.engine.training.imitation import Watched, imitate
from asyncdiff_cli.engine.training.recipe import Recipe


def new_tpm(recipe: Recipe, backbone: Backbone) -> TimestepPredictionModule:
    """An untrained module for a backbone, a function of the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return TimestepPredictionModule(
            **backbone.adapter.channels,
            bound=recipe.bound,
            actions=recipe.actions,
            **recipe.tpm.model_dump(),
        )


class TrainingState:
    """A module in training, and what is known of it. Every process has the same.

    Attributes:
        iteration: how many are complete.
        tpm: the module.
        average: the exponential moving average of its weights; None if the recipe wants none.
        optimizer: its optimizer.
        batch_size: how many images are drawn at once.
        baseline: the synchronous sampler's held-out scores by reward; empty until they are known.
        early_stop: what the evaluations have shown.
        best: the iteration with the best held-out reward so far.
        stopped: whether the signs of reward hacking have ended it.
        composites: of the training's images since the last evaluation, in baseline units.
    """

    def __init__(self, recipe: Recipe, backbone: Backbone, device: torch.device) -> None:
        self.recipe = recipe
        self.tpm = new_tpm(recipe, backbone).to(device)
        self.average = copy.deepcopy(self.tpm) if recipe.ema_decay else None
        self.optimizer = torch.optim.AdamW(
            self.tpm.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.batch_size = BatchSize(recipe.rollout_batch_size)
        self.iteration = 0
        self.baseline: dict[str, Tensor] = {}
        self.early_stop = EarlyStop()
        self.best: int | None = None
        self.stopped = False
        self.composites: list[float] = []

    @property
    def current(self) -> TimestepPredictionModule:
        """The module that is evaluated and kept: the average, if there is one."""
        return self.tpm if self.average is None else self.average

    def begin_at(self, watched: Sequence[Watched], accelerator: Any) -> None:
        """Have the module decide as was watched, whatever it sees.

        All processes go on from the mean of what each has made of it: GPUs round differently.
        """
        imitate(self.tpm, watched)
        if accelerator.num_processes > 1:
            for parameter in self.tpm.parameters():
                parameter.data.copy_(accelerator.reduce(parameter.data.cpu(), "mean"))
        if self.average is not None:
            self.average.load_state_dict(self.tpm.state_dict())

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average, if there is one, toward the module's weights."""
        if self.average is None or self.recipe.ema_decay is None:
            return
        pairs = zip(self.average.parameters(), self.tpm.parameters(), strict=True)
        for averaged, weight in pairs:
            averaged.lerp_(weight, 1 - self.recipe.ema_decay)

    def evaluated(self, composite: Tensor, noise: Tensor) -> str | None:
        """Keep what an evaluation of the current module shows; returns a warning if it is bad.

        Args:
            composite: of each held-out prompt, in baseline units, [n].
            noise: the residual-noise guard of each, [n].
        """
        snapshot = Snapshot(
            self.iteration,
            sum(self.composites) / len(self.composites),
            tuple(composite.tolist()),
            tuple(noise.tolist()),
        )
        if self.early_stop.first is None:  # what noise is compared with is the baseline's
            guard = tuple(self.baseline[GUARD].tolist())
            self.early_stop = EarlyStop(first=dataclasses.replace(snapshot, noise=guard))
        self.early_stop, warning = self.early_stop.update(snapshot)
        self.composites = []
        assert self.early_stop.best is not None  # it has just seen one
        self.best = self.early_stop.best.iteration
        return warning

    def checkpoint(self) -> Checkpoint:
        """The state after the last complete iteration, copied."""
        modules = {"tpm": self.tpm, **({} if self.average is None else {"average": self.average})}
        tensors = {
            f"{name}.{key}": weight
            for name, module in modules.items()
            for key, weight in module.state_dict().items()
        }
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{key}": value for key, value in moments.items()}
        state = {
            "iteration": self.iteration,
            "rollout_batch_size": [self.recipe.rollout_batch_size, self.batch_size.value],
            "baseline": {name: scores.tolist() for name, scores in self.baseline.items()},
            "watch": dataclasses.asdict(self.early_stop),
            "best": self.best,
            "since": list(self.composites),
            "stopped": self.stopped,
        }
        copies = {k: v.detach().to("cpu", copy=True) for k, v in tensors.items()}
        return Checkpoint(state, copies)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, as if there had been no interruption."""
        state = checkpoint.state
        self.iteration, self.best = state["iteration"], state["best"]
        self.stopped, self.composites = state["stopped"], list(state["since"])
        asked, fitting = state["rollout_batch_size"]
        if asked == self.recipe.rollout_batch_size:
            self.batch_size.value = fitting
        self.baseline = {name: torch.tensor(scores) for name, scores in state["baseline"].items()}
        snapshots = {k: v and Snapshot(**v) for k, v in state["watch"].items() if k != "bad"}
        self.early_stop = EarlyStop(**snapshots, bad=state["watch"]["bad"])
        self.tpm.load_state_dict(checkpoint.under("tpm."))
        if self.average is not None:
            self.average.load_state_dict(checkpoint.under("average."))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in checkpoint.under("optimizer.").items():
            number, name = key.split(".")
            moments.setdefault(int(number), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def module_of(self, checkpoint: Checkpoint) -> TimestepPredictionModule:
        """The module that was current at a checkpoint, apart from the one in training."""
        module = copy.deepcopy(self.current)
        weights = checkpoint.under("tpm." if self.average is None else "average.")
        module.load_state_dict(weights)
        return module
