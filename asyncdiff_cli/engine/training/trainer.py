"""GRPO training of the timestep prediction module around a frozen backbone (section 3)."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from asyncdiff_cli.engine.backbones.backbone import Backbone
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, Stopwatch
from asyncdiff_cli.engine.drawing.provenance import save_png
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.interrupts import as_interrupts, exit_code, ignore_interrupts
from asyncdiff_cli.engine.policies.base import Policy
from asyncdiff_cli.engine.policies.given import Synchronous
from asyncdiff_cli.engine.policies.learned import LearnedDeviation
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.rewards import GUARD
from asyncdiff_cli.engine.rewards.composite import relative_composite
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.early_stop import EarlyStop, Snapshot
from asyncdiff_cli.engine.training.held_out import HeldOut, columns, compare
from asyncdiff_cli.engine.training.recipe import RESUMABLE, Recipe
from asyncdiff_cli.engine.training.rollout import (
    Rollout,
    Trajectory,
    number_of_steps,
    plan_iteration,
    roll_out,
)
from asyncdiff_cli.engine.training.run import Checkpoint, RunDirectory
from asyncdiff_cli.engine.training.update import Decided, Progress, decided, minibatches, update

Event = tuple[str, dict[str, Any]]
"""("iteration" | "evaluation" | "warning", JSON values)."""


class InterruptedRunError(AsyncDiffError):
    """Someone stopped the training; a checkpoint of the last complete iteration is written."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def new_tpm(recipe: Recipe, backbone: Backbone) -> TimestepPredictionModule:
    """An untrained module for a backbone, a function of the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return TimestepPredictionModule(
            **backbone.adapter.channels, bound=recipe.bound, **recipe.tpm.model_dump()
        )


def identity(
    recipe: Recipe, backbone: Backbone | Outline, prompts: PromptSet, held_out: PromptSet
) -> str:
    """SHA-256 over all that a checkpoint of a run depends on."""
    parts = (
        recipe.model_dump_json(exclude=set(RESUMABLE)),
        backbone.fingerprint or backbone.revision or "",
        prompts.fingerprint,
        held_out.fingerprint,
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass
class Trainer:
    """A run in progress. Every process has one, and computes its share of each iteration.

    Attributes:
        iteration: how many are complete.
        baseline: the synchronous sampler's held-out scores by reward.
        best: the iteration with the best held-out reward so far.
    """

    recipe: Recipe
    canvas: Canvas
    scorers: RewardGroup
    prompts: PromptSet
    held_out: HeldOut | None
    run: RunDirectory
    accelerator: Accelerator
    iteration: int = 0
    baseline: dict[str, Tensor] = field(default_factory=dict)
    watch: EarlyStop = field(default_factory=EarlyStop)
    best: int | None = None
    stopped: bool = False
    _since: list[float] = field(default_factory=list)
    """Training composites since the last evaluation, in baseline units."""

    def __post_init__(self) -> None:
        self.tpm = new_tpm(self.recipe, self.canvas.backbone).to(self.accelerator.device)
        self.average = copy.deepcopy(self.tpm) if self.recipe.ema_decay else None
        self.optimizer = torch.optim.AdamW(
            self.tpm.parameters(),
            lr=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
        )
        self.batch_size = BatchSize(self.recipe.rollout_batch_size)
        self._complete = self.checkpoint()

    @property
    def current(self) -> TimestepPredictionModule:
        """The module that is evaluated and kept: the average, if there is one."""
        return self.tpm if self.average is None else self.average

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.accelerator.is_main_process

    def train(self) -> Generator[Event, None, None]:
        """Train to the last iteration, and tell what happens on the way.

        Raises:
            InputError: if there is nothing left to do.
            AsyncDiffError: for NaN or infinity in rewards, latents or gradients, if memory does
                not suffice, or if another process has died. The last checkpoint is good.
            InterruptedRunError: on SIGINT or SIGTERM, after a checkpoint.
        """
        if self.iteration >= self.recipe.iterations or self.stopped:
            if self._finish():
                return  # killed between its last checkpoint and its module
            raise InputError(
                f"stopped early after iteration {self.iteration}: the module is {self.run.tpm}"
                if self.stopped
                else f"all {self.recipe.iterations} iterations are done: add iterations=N to go on"
            )
        with as_interrupts():
            yield from self._train()

    def _train(self) -> Iterator[Event]:
        now = self.iteration + 1
        try:
            with as_interrupts():  # in here, so that one that a library makes an error of is one
                if self.held_out is not None and not self.baseline:
                    yield from self._measure_baseline()
                while self.iteration < self.recipe.iterations and not self.stopped:
                    now = self.iteration + 1
                    yield from self._advance()
                self._finish()
        except KeyboardInterrupt as interrupt:
            self._save_complete()
            raise InterruptedRunError(
                f"stopped after iteration {self._complete.iteration}; {self._hint()}",
                exit_code(interrupt),
            ) from None
        except AsyncDiffError as error:
            kind = type(error)
            raise kind(f"iteration {now}: {error}; {self._hint()}") from None
        except torch.OutOfMemoryError:
            raise AsyncDiffError(
                f"iteration {now}: out of memory while encoding, scoring or updating: use"
                f" offload_rewards=true, or a smaller mini_batch_size; {self._hint()}"
            ) from None
        except RuntimeError as error:
            if self.accelerator.num_processes == 1:
                raise
            self._save_complete()  # a collective failed
            raise AsyncDiffError(
                f"this process, or another one of the run, has failed in iteration {now}"
                f" ({error}); {self._hint()}"
            ) from None

    def _hint(self) -> str:
        files = self.run.files()
        if not files:
            return "there is no checkpoint yet"
        return f"go on from {files[-1].name} with `asyncdiff train --resume {self.run.path}`"

    def _advance(self) -> Iterator[Event]:
        row = self._iterate()
        self.iteration += 1
        self._log(row)
        told: list[Event] = [*self._warnings(), ("iteration", row)]
        recipe, last, best = self.recipe, self.iteration == self.recipe.iterations, self.best
        evaluated, pictured = (
            self.held_out is not None and _due(self.iteration, every, last)
            for every in (recipe.evaluation.every, recipe.samples.every)
        )
        if evaluated or pictured:  # which take their time
            yield from told
            told = list(self._evaluate()) if evaluated else []
            if pictured:
                self._draw_samples()
            told += self._warnings()
        if self.is_main:
            self._complete = self.checkpoint()
            due = _due(self.iteration, recipe.checkpoint.every, last or self.stopped)
            if due or self.best != best:
                self.run.save(self._complete, recipe.checkpoint.keep, self.best)
        yield from told

    def _iterate(self) -> dict[str, Any]:
        """Roll out, score, compare, update; returns the metrics."""
        start, recipe, accelerator = time.perf_counter(), self.recipe, self.accelerator
        clock = Stopwatch(accelerator.device)
        everyone = plan_iteration(recipe, self.prompts, self.iteration)
        mine = everyone[accelerator.process_index :: accelerator.num_processes]
        rollout = roll_out(
            self.canvas, self.tpm, mine, recipe, self.iteration, self.batch_size, clock
        )
        with clock("rewards"):
            texts = [t.prompt for t in mine]
            scores = self.scorers.score(rollout.images, texts) if mine else {}
        with clock("update"):
            places = minibatches([t.index for t in mine], len(everyone), recipe.mini_batch_size)
            old = decided(self.tpm, rollout, places)
        with clock("waiting"):
            rows = gather_object(_trajectory_rows(rollout, old, scores))
        table = sorted(rows, key=lambda r: r["index"])
        values = {
            name: torch.tensor([r["scores"][name] for r in table]) for name in self.scorers.weights
        }
        advantages = self._judge(everyone, values)
        with clock("update"):
            own = advantages[[t.index for t in mine]]
            progress = update(
                self.tpm, self.optimizer, rollout, old, places, own, recipe, accelerator
            )
            self._average()
        with clock("waiting"):
            parts = gather_object([progress])
        seconds = time.perf_counter() - start
        return {
            "iteration": self.iteration + 1,
            "steps": number_of_steps(recipe, self.iteration),
            "seconds": round(seconds, 4),
            "images_per_second": round(len(everyone) / seconds, 3),
            "shares": {n: round(s / seconds, 4) for n, s in clock.seconds.items()},
            **self._reward_metrics(everyone, values),
            **_policy_metrics(table),
            **_update_metrics(parts, recipe),
        }

    def _judge(self, everyone: Sequence[Trajectory], values: Mapping[str, Tensor]) -> Tensor:
        """Â of every trajectory, fp64 [N], by its index: rewards are compared within a group."""
        groups = torch.tensor(_groups(everyone))  # [groups, size]
        by_baseline = self.recipe.scale_rewards == "baseline"
        if by_baseline:
            relative = relative_composite(values, self.baseline, self.scorers.weights)
            rewards = relative[groups]
        else:
            each = ({name: scores[places] for name, scores in values.items()} for places in groups)
            rewards = torch.stack([self.scorers.composite(scores) for scores in each])
        advantages = torch.zeros(len(everyone), dtype=torch.float64)
        advantages[groups] = grpo.advantages(rewards, shared_scale=by_baseline)
        return advantages

    def _reward_metrics(
        self, everyone: Sequence[Trajectory], values: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Each reward's mean, its deviation within the groups, and z, the mean in units of the
        baseline's held-out scores (within a group it is 0); and the composite in these units."""
        groups = torch.tensor(_groups(everyone))
        within = {
            name: scores[groups].std(1, correction=0).mean() for name, scores in values.items()
        }
        metrics = {
            name: {"raw": float(scores.mean()), "std": float(within[name])}
            for name, scores in values.items()
        }
        if not self.baseline:
            return {"rewards": metrics}
        for name, scores in values.items():
            z = relative_composite({name: scores}, self.baseline, {name: 1.0})
            metrics[name]["z"] = float(z.mean())
        composite = relative_composite(values, self.baseline, self.scorers.weights)
        if self.recipe.evaluation.every:
            self._since.append(float(composite.mean()))
        return {"rewards": metrics, "composite": float(composite.mean())}

    def _average(self) -> None:
        if self.average is None or self.recipe.ema_decay is None:
            return
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.tpm.parameters(), strict=True)
            for kept, now in pairs:
                kept.lerp_(now, 1 - self.recipe.ema_decay)

    def _held_out_scores(self, policy: Policy) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """All processes' scores of the held-out prompts, by reward, and their rows."""
        assert self.held_out is not None  # the callers have looked
        clock = Stopwatch(self.accelerator.device)
        first, step = self.accelerator.process_index, self.accelerator.num_processes
        places = range(first, len(self.held_out.prompts), step)
        rows = gather_object(self.held_out.evaluate(policy, places, self.batch_size, clock))
        return columns(rows), rows

    def _measure_baseline(self) -> Iterator[Event]:
        self.baseline, _ = self._held_out_scores(Synchronous())
        row = {
            "iteration": 0,
            "held_out": {name: float(s.mean()) for name, s in self.baseline.items()},
        }
        self._log(row)
        yield "evaluation", row

    def _evaluate(self) -> Iterator[Event]:
        """Compare the current module with the baseline, and look for signs of reward hacking."""
        scores, rows = self._held_out_scores(LearnedDeviation(self.current))
        weights = self.scorers.weights
        relative = relative_composite(scores, self.baseline, weights)
        now = Snapshot(
            self.iteration,
            sum(self._since) / len(self._since),
            tuple(relative.tolist()),
            tuple(scores[GUARD].tolist()),
        )
        if self.watch.first is None:  # what noise is compared with is the baseline's
            guard = tuple(self.baseline[GUARD].tolist())
            self.watch = EarlyStop(first=dataclasses.replace(now, noise=guard))
        self.watch, warning = self.watch.see(now)
        self._since = []
        assert self.watch.best is not None  # it has just seen one
        self.best = self.watch.best.iteration
        row = {
            "iteration": self.iteration,
            "held_out": compare(scores, self.baseline, weights),
            "deviation": torch.tensor([r["deviations"] for r in rows]).mean(0).tolist(),
            "best": self.best,
        }
        self._log(row)
        yield "evaluation", row
        if warning is not None:
            yield self._warned(warning)
        patience = self.recipe.evaluation.patience
        if patience is not None and self.watch.bad >= patience:
            self.stopped = True
            yield self._warned(f"stopped early, after {patience} such evaluations in a row")

    def _warned(self, text: str) -> Event:
        """A bad sign, which is kept with the metrics."""
        row = {"iteration": self.iteration, "warning": text}
        if self.is_main:
            self.run.log(row)
        return "warning", row

    def _warnings(self) -> Iterator[Event]:
        for text in self.batch_size.warnings:
            yield "warning", {"iteration": self.iteration, "warning": text}
        self.batch_size.warnings.clear()

    def _draw_samples(self) -> None:
        if not self.is_main or self.held_out is None:
            return
        policies: dict[str, Policy] = {
            "synchronous": Synchronous(),
            f"iteration {self.iteration}": LearnedDeviation(self.current),
        }
        clock = Stopwatch(self.accelerator.device)
        panel, record = self.held_out.grid(
            policies, self.recipe.samples.count, self.batch_size, clock
        )
        save_png(panel, self.run.sample(self.iteration), record)

    def _log(self, row: Mapping[str, Any]) -> None:
        if self.is_main:
            self.run.log(row)
        self.accelerator.log(flat(row), step=row["iteration"])

    def _save_complete(self) -> None:
        """Keep the last complete iteration, if it is more than what is on the disk."""
        if self.is_main and self._complete.iteration > 0:
            ignore_interrupts()
            best = self._complete.state["best"]  # self.best may be of an iteration that is lost
            self.run.save(self._complete, self.recipe.checkpoint.keep, best)

    def _finish(self) -> bool:
        """Write the module to use; whether it was not there yet."""
        if not self.is_main:
            return True
        if self.canvas.text is not None:
            self.canvas.text.remove()
        module = copy.deepcopy(self.current)
        if self.best is not None and self.best != self.iteration:
            module.load_state_dict(self._weights(self.run.read(self.run.file(self.best)).tensors))
        wanted = LearnedDeviation(module).fingerprint
        with suppress(AsyncDiffError):  # for a torn one
            if self.run.is_kept() and LearnedDeviation.load(self.run.tpm).fingerprint == wanted:
                return False
        self.run.keep(module)
        return True

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
            "watch": dataclasses.asdict(self.watch),
            "best": self.best,
            "since": list(self._since),
            "stopped": self.stopped,
        }
        copies = {k: v.detach().to("cpu", copy=True) for k, v in tensors.items()}
        return Checkpoint(state, copies)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, as if there had been no interruption."""
        state, tensors = checkpoint.state, checkpoint.tensors
        self.iteration, self.best = state["iteration"], state["best"]
        self.stopped, self._since = state["stopped"], list(state["since"])
        asked, fitting = state["rollout_batch_size"]
        if asked == self.recipe.rollout_batch_size:
            self.batch_size.value = fitting
        self.baseline = {name: torch.tensor(values) for name, values in state["baseline"].items()}
        seen = {k: v and Snapshot(**v) for k, v in state["watch"].items() if k != "bad"}
        self.watch = EarlyStop(**seen, bad=state["watch"]["bad"])
        self.tpm.load_state_dict(_under("tpm.", tensors))
        if self.average is not None:
            self.average.load_state_dict(_under("average.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optimizer.", tensors).items():
            number, name = key.split(".")
            moments.setdefault(int(number), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._complete = checkpoint

    def _weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _under("tpm." if self.average is None else "average.", tensors)


def _groups(everyone: Sequence[Trajectory]) -> list[list[int]]:
    """The indices of each group's trajectories."""
    count = 1 + max(trajectory.group for trajectory in everyone)
    return [[t.index for t in everyone if t.group == group] for group in range(count)]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _due(iteration: int, every: int, last: bool) -> bool:
    return every > 0 and (last or iteration % every == 0)


def _trajectory_rows(
    rollout: Rollout, old: Decided, scores: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """What the other processes need to know of this one's trajectories."""
    return [
        {
            "index": trajectory.index,
            "scores": {name: float(own[place]) for name, own in scores.items()},
            "deviations": rollout.deviations[place].tolist(),
            "alpha": old.alpha[place].tolist(),
            "beta": old.beta[place].tolist(),
            "entropy": float(old.entropy[place]),
        }
        for place, trajectory in enumerate(rollout.trajectories)
    ]


def _policy_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the module decided: per step the deviation's mean and deviation, α and β."""
    drawn = torch.tensor([row["deviations"] for row in rows])
    return {
        "deviation": {
            "mean": drawn.mean(0).tolist(),
            "std": drawn.std(0, correction=0).tolist(),
        },
        "alpha": torch.tensor([row["alpha"] for row in rows]).mean(0).tolist(),
        "beta": torch.tensor([row["beta"] for row in rows]).mean(0).tolist(),
        "entropy": sum(row["entropy"] for row in rows) / len(rows),
    }


def _update_metrics(parts: Sequence[Progress], recipe: Recipe) -> dict[str, float]:
    seen = sum(part.trajectories for part in parts)
    return {
        "approximate_kl": sum(part.approximate_kl for part in parts) / seen,
        "clip_fraction": sum(part.clipped for part in parts) / seen,
        "grad_norm": max(part.grad_norm for part in parts),
    }


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested JSON values, as trackers take them: `rewards/clip/raw`."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, list):
            value = {str(number): each for number, each in enumerate(value)}
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[prefix + name] = value
    return found
