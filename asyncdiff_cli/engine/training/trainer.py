"""GRPO training of the timestep prediction module around a frozen backbone (section 3)."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from asyncdiff_cli.engine.drawing.canvas import Canvas, Stopwatch
from asyncdiff_cli.engine.drawing.provenance import save_png
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.interrupts import as_interrupts
from asyncdiff_cli.engine.policies.base import Policy
from asyncdiff_cli.engine.policies.given import Synchronous
from asyncdiff_cli.engine.policies.learned import LearnedDeviation
from asyncdiff_cli.engine.policies.specs import make_policy, read_policy
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.rewards import COMPOSITE, GUARD
from asyncdiff_cli.engine.rewards.composite import relative_composite
from asyncdiff_cli.engine.rewards.group import RewardGroup
from asyncdiff_cli.engine.training import grpo
from asyncdiff_cli.engine.training.baselines import BASELINES
from asyncdiff_cli.engine.training.checkpoint import Checkpoint
from asyncdiff_cli.engine.training.credit import Branching, credited
from asyncdiff_cli.engine.training.held_out import HeldOut, HeldOutRecord, compare, scores_by_reward
from asyncdiff_cli.engine.training.imitation import WATCHED, fitted_steps, watch
from asyncdiff_cli.engine.training.interrupts import LastComplete, resumable
from asyncdiff_cli.engine.training.metrics import (
    flat,
    gathered,
    policy_metrics,
    reward_metrics,
    trajectory_records,
    update_metrics,
)
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.rollout import (
    Trajectory,
    dealt,
    group_indices,
    number_of_steps,
    plan_iteration,
    roll_out,
)
from asyncdiff_cli.engine.training.rows import (
    BaselineRow,
    CompositeMetric,
    EvaluationRow,
    Event,
    IterationRow,
    MetricRow,
    WarningRow,
)
from asyncdiff_cli.engine.training.run import RunDirectory
from asyncdiff_cli.engine.training.state import TrainingState
from asyncdiff_cli.engine.training.update import decided, minibatches, update


@dataclass
class Trainer:
    """A run in progress. Every process has one, and computes its share of each iteration.

    Attributes:
        recipe: what is trained, and how.
        canvas: draws the images.
        scorers: the rewards with their weights.
        prompts: those of the iterations.
        held_out: those of the evaluations; None without evaluations and samples.
        run: where it is written.
        accelerator: knows the other processes.
        state: what the iterations change.
    """

    recipe: Recipe
    canvas: Canvas
    scorers: RewardGroup
    prompts: PromptSet
    held_out: HeldOut | None
    run: RunDirectory
    accelerator: Accelerator

    def __post_init__(self) -> None:
        device = self.accelerator.device
        self.state = TrainingState(self.recipe, self.canvas.backbone, device)
        self._running = 1
        keep, start = self.recipe.checkpoint.keep, self.state.checkpoint()
        self._last = LastComplete(self.run, keep, start, self.is_main)

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
        state = self.state
        if state.iteration >= self.recipe.iterations or state.stopped:
            if self._finish():
                return  # killed between its last checkpoint and its module
            raise InputError(
                f"stopped early after iteration {state.iteration}: the module is {self.run.tpm}"
                if state.stopped
                else f"all {self.recipe.iterations} iterations are done: add iterations=N to go on"
            )
        try:
            with as_interrupts():
                yield from self._train()
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def _train(self) -> Iterator[Event]:
        state, self._running = self.state, self.state.iteration + 1
        with resumable(self._last, lambda: self._running, self.accelerator.num_processes):
            if self.recipe.start is not None and state.iteration == 0:
                yield from self._begin_at(self.recipe.start)
            if self.held_out is not None and not state.baseline:
                yield from self._measure_baseline()
            while state.iteration < self.recipe.iterations and not state.stopped:
                self._running = state.iteration + 1
                yield from self._advance()
            self._finish()

    def _begin_at(self, start: str) -> Iterator[Event]:
        """Have the module decide as a policy; it says where its bound cuts that short."""
        recipe = self.recipe
        policy = make_policy(read_policy(start), self.canvas.backbone.entry)
        encoded = recipe.iterations * recipe.prompts_per_iteration
        prompts = [self.prompts.at(n % encoded, recipe.seed) for n in range(WATCHED)]
        watched = [
            watch(self.canvas, prompts, policy, steps, recipe.seed)
            for steps in fitted_steps(recipe)
        ]
        self.state.begin_at(watched, self.accelerator)
        furthest = max(float(runs.deviations.abs().max()) for runs in watched)
        if furthest > recipe.bound:
            text = f"{start} has D up to {furthest:g}: the module begins at its bound"
            yield self._warned(f"{text}, {recipe.bound:g}")

    def _advance(self) -> Iterator[Event]:
        recipe, state, best = self.recipe, self.state, self.state.best
        row = self._iterate()
        state.iteration += 1
        self._log(row)
        events: list[Event] = [*self._warnings(), ("iteration", row)]
        last = state.iteration == recipe.iterations
        evaluated, pictured = (
            self.held_out is not None and _due(state.iteration, every, last)
            for every in (recipe.evaluation.every, recipe.samples.every)
        )
        if evaluated or pictured:  # which take their time
            yield from events
            events = list(self._evaluate()) if evaluated else []
            if pictured:
                self._draw_samples()
            events += self._warnings()
        if self.is_main:
            self._last.checkpoint = state.checkpoint()
            due = _due(state.iteration, recipe.checkpoint.every, last or state.stopped)
            if due or state.best != best:
                self.run.save(self._last.checkpoint, recipe.checkpoint.keep, state.best)
        yield from events

    def _iterate(self) -> IterationRow:
        """Roll out, score, compare, update; returns the metrics."""
        start, recipe, state = time.perf_counter(), self.recipe, self.state
        clock = Stopwatch(self.accelerator.device)
        everyone = plan_iteration(recipe, self.prompts, state.iteration)
        mine = dealt(everyone, self.accelerator.process_index, self.accelerator.num_processes)
        rollout = roll_out(
            self.canvas, state.tpm, mine, recipe, state.iteration, state.batch_size, clock
        )
        with clock("rewards"):
            texts = [t.prompt for t in mine]
            my_scores = self.scorers.score(rollout.images, texts) if mine else {}
            my_previews = [self.scorers.score(images, texts) for images in rollout.previews]
        with clock("update"):
            parts = minibatches([t.index for t in mine], len(everyone), recipe.mini_batch_size)
            old = decided(state.tpm, rollout, parts, recipe.estimator.by_decision)
        with clock("waiting"):
            theirs = gather_object(trajectory_records(rollout, old, my_scores, my_previews))
        records = sorted(theirs, key=lambda record: record["index"])
        scores, *previews = (
            gathered(stage, self.scorers.weights)
            for stage in zip(*([r["scores"], *r["previews"]] for r in records), strict=True)
        )
        advantages = self._judge(everyone, scores, previews)[..., [t.index for t in mine]]
        with clock("update"):
            sums = update(
                state.tpm, state.optimizer, rollout, old, parts, advantages, recipe,
                self.accelerator,
            )  # fmt: skip
            state.update_average()
        with clock("waiting"):
            all_sums = gather_object([sums])
        seconds = time.perf_counter() - start
        row: IterationRow = {
            "iteration": state.iteration + 1,
            "steps": number_of_steps(recipe, state.iteration),
            "seconds": round(seconds, 4),
            "images_per_second": round(len(everyone) / seconds, 3),
            "shares": {name: round(spent / seconds, 4) for name, spent in clock.seconds.items()},
            "rewards": reward_metrics(scores, group_indices(everyone), state.baseline),
            **self._composite(scores),
            **policy_metrics(records),
            **update_metrics(all_sums),
        }
        return row

    def _judge(
        self,
        everyone: Sequence[Trajectory],
        scores: Mapping[str, Tensor],
        previews: Sequence[Mapping[str, Tensor]] = (),
    ) -> Tensor:
        """Â of every trajectory, fp64 [N], by its index: rewards are compared within a group.

        Of their decisions, [S, N], where these have a credit of their own.
        """
        groups, own = group_indices(everyone), self.recipe.estimator
        by_baseline, baseline = self.recipe.scale_rewards == "baseline", BASELINES[own.baseline]
        if not own.by_decision:
            rewards = self._compared(scores, groups)
            advantages = torch.zeros(len(everyone), dtype=torch.float64)
        else:
            tree = Branching.of(self.recipe, number_of_steps(self.recipe, self.state.iteration))
            credits_ = credited(scores, previews, own.stepwise, tree.decisions)
            rewards = tree.values(torch.stack([self._compared(c, groups) for c in credits_]))
            baseline = partial(tree.baseline, baseline)
            advantages = torch.zeros(len(rewards), len(everyone), dtype=torch.float64)
        advantages[..., groups] = grpo.advantages(rewards, by_baseline, baseline)
        return advantages

    def _compared(self, scores: Mapping[str, Tensor], groups: Tensor) -> Tensor:
        """The rewards as one, in what a group's are compared in, [groups, size]."""
        if self.recipe.scale_rewards == "baseline":
            return relative_composite(scores, self.state.baseline, self.scorers.weights)[groups]
        by_group = ({name: values[places] for name, values in scores.items()} for places in groups)
        return torch.stack([self.scorers.composite(in_group) for in_group in by_group])

    def _composite(self, scores: Mapping[str, Tensor]) -> CompositeMetric:
        """The mean composite in units of the baseline's held-out scores, if these are known."""
        if not self.state.baseline:
            return {}
        composites = relative_composite(scores, self.state.baseline, self.scorers.weights)
        mean = float(composites.mean())
        if self.recipe.evaluation.every:
            self.state.composites.append(mean)
        return {COMPOSITE: mean}

    def _held_out_scores(self, policy: Policy) -> tuple[dict[str, Tensor], list[HeldOutRecord]]:
        """All processes' scores of the held-out prompts, by reward, and their records."""
        assert self.held_out is not None  # the callers have looked
        clock = Stopwatch(self.accelerator.device)
        first, step = self.accelerator.process_index, self.accelerator.num_processes
        places = range(first, len(self.held_out.prompts), step)
        mine = self.held_out.evaluate(policy, places, self.state.batch_size, clock)
        records = gather_object(mine)
        return scores_by_reward(records), records

    def _measure_baseline(self) -> Iterator[Event]:
        self.state.baseline, _ = self._held_out_scores(Synchronous())
        means = {name: float(scores.mean()) for name, scores in self.state.baseline.items()}
        row: BaselineRow = {"iteration": 0, "held_out": means}
        self._log(row)
        yield "evaluation", row

    def _evaluate(self) -> Iterator[Event]:
        """Compare the current module with the baseline, and look for signs of reward hacking."""
        state, weights = self.state, self.scorers.weights
        scores, records = self._held_out_scores(LearnedDeviation(state.current))
        relative = relative_composite(scores, state.baseline, weights)
        warning = state.evaluated(relative, scores[GUARD])
        assert state.best is not None  # it has just been evaluated
        deviations = torch.tensor([record["deviations"] for record in records])
        row: EvaluationRow = {
            "iteration": state.iteration,
            "held_out": compare(scores, state.baseline, weights),
            "deviation": deviations.mean(0).tolist(),
            "best": state.best,
        }
        self._log(row)
        yield "evaluation", row
        if warning is not None:
            yield self._warned(warning)
        patience = self.recipe.evaluation.patience
        if patience is not None and state.early_stop.bad >= patience:
            state.stopped = True
            yield self._warned(f"stopped early, after {patience} such evaluations in a row")

    def _warned(self, text: str) -> Event:
        """A bad sign, which is kept with the metrics."""
        row: WarningRow = {"iteration": self.state.iteration, "warning": text}
        if self.is_main:
            self.run.log(row)
        return "warning", row

    def _warnings(self) -> Iterator[Event]:
        for text in self.state.batch_size.warnings:
            yield "warning", {"iteration": self.state.iteration, "warning": text}
        self.state.batch_size.warnings.clear()

    def _draw_samples(self) -> None:
        if not self.is_main or self.held_out is None:
            return
        state = self.state
        policies: dict[str, Policy] = {
            "synchronous": Synchronous(),
            f"iteration {state.iteration}": LearnedDeviation(state.current),
        }
        clock = Stopwatch(self.accelerator.device)
        panel, record = self.held_out.sheet(
            policies, self.recipe.samples.count, state.batch_size, clock
        )
        save_png(panel, self.run.sample(state.iteration), record)

    def _log(self, row: MetricRow) -> None:
        if self.is_main:
            self.run.log(row)
        self.accelerator.log(flat(row), step=row["iteration"])

    def _finish(self) -> bool:
        """Write the module to use; whether it was not there yet."""
        if not self.is_main:
            return True
        if self.canvas.text is not None:
            self.canvas.text.remove()
        state, module = self.state, self.state.current
        if state.best is not None and state.best != state.iteration:
            module = state.module_of(self.run.read(self.run.file(state.best)))
        wanted = LearnedDeviation(module).fingerprint
        with suppress(AsyncDiffError):  # for a torn one
            if self.run.is_kept() and LearnedDeviation.load(self.run.tpm).fingerprint == wanted:
                return False
        self.run.keep(module)
        return True

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, as if there had been no interruption."""
        self.state.restore(checkpoint)
        self._last.checkpoint = checkpoint


def _due(iteration: int, every: int, last: bool) -> bool:
    return every > 0 and (last or iteration % every == 0)
