"""What a module decides in the mean, as a schedule that does the same to all pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine.evaluation.contender import seed_of_noise
from asyncdiff_cli.engine.files import write_text
from asyncdiff_cli.engine.policies.actions import SPACING
from asyncdiff_cli.engine.policies.asking import for_run, velocity_scale_of
from asyncdiff_cli.engine.policies.base import Policy, StepState
from asyncdiff_cli.engine.policies.learned import LearnedDeviation
from asyncdiff_cli.engine.policies.specs import make_policy, plain, read_policy
from asyncdiff_cli.engine.schedules.request import BATCH_SIZE
from benchmarks.evidence.bench import Bench
from benchmarks.evidence.plan import AVERAGED, Plan
from benchmarks.evidence.rows import EULER, MEAN, as_policy
from benchmarks.reports import slug

DECIMALS = 4


class _Watched:
    """A policy whose decisions are kept, [pictures] of each evaluation that it is asked for."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.last = policy, 0
        self.deviations: dict[int, list[Tensor]] = {}
        self.scales: dict[int, list[Tensor]] = {}

    @property
    def bound(self) -> float:
        """The policy's bound."""
        return self.policy.bound

    def for_run(self, sigmas: Tensor, solver: str) -> _Watched:
        """The same of the policy for a run, which keeps its decisions with the others."""
        watched = _Watched(for_run(self.policy, sigmas, solver))
        watched.deviations, watched.scales = self.deviations, self.scales
        return watched

    def __call__(self, state: StepState) -> Tensor:
        self.last, deviation = state.index, self.policy(state)
        self.deviations.setdefault(state.index, []).append(deviation)
        return deviation

    def velocity_scale(self, sigma: Tensor, cond_sigma: Tensor, gamma: float) -> Tensor | None:
        """The policy's factor, as it was decided with the last deviation."""
        scale = velocity_scale_of(self.policy, sigma, cond_sigma, gamma)
        if scale is not None:
            self.scales.setdefault(self.last, []).append(scale)
        return scale

    def to_dict(self) -> dict[str, Any]:
        """Name and settings of the policy."""
        return self.policy.to_dict()


def mean_policies(plan: Plan, bench: Bench, steps: int, out: Path) -> dict[str, str]:
    """The policies of the modules' mean decisions, by module; what is in a folder is read.

    There is none that the plan leaves out, of a module for another solver than Euler, of one that
    moves the grid, or of a policy that is no module.

    Raises:
        InputError, AsyncDiffError: as `make_policy`.
    """
    found = {}
    for name, module in plan.modules.items():
        if plan.only is not None and MEAN.format(name) not in plan.only:
            continue
        spec = read_policy(module.policy(steps))
        policy = make_policy(spec, plan.entry)
        if not isinstance(policy, LearnedDeviation) or module.solver != EULER:
            continue
        if SPACING in policy.tpm.actions:
            continue
        file = out / f"mean-{slug(name)}-{steps}.json"
        kept: Mapping[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        if kept.get("module") != policy.fingerprint:
            kept = {"module": policy.fingerprint, "policy": _mean(plan, bench, policy, steps)}
            write_text(file, json.dumps(kept))
        found[name] = kept["policy"]
    return found


def _mean(plan: Plan, bench: Bench, policy: LearnedDeviation, steps: int) -> str:
    """The policy of the mean decisions on the first prompts that rows are tuned on."""
    prompts, canvas, watched = plan.chosen_on, bench.evaluation.canvas, _Watched(policy)
    bench.put(EULER, None)
    texts = [prompts.texts.texts[index] for index in prompts.order[:AVERAGED]]
    encoded, size = bench.encode(texts), plan.batch_size or BATCH_SIZE
    for first in range(0, len(texts), size):
        own = [encoded[text] for text in texts[first : first + size]]
        seeds = [seed_of_noise(prompts.seed, first + n, 0) for n in range(len(own))]
        canvas.sample(own, seeds, watched, steps)
    deviations, scales = (
        [float(torch.cat([each.float() for each in own]).mean()) for own in by_step.values()]
        for by_step in (watched.deviations, watched.scales)
    )
    if not scales:
        return as_policy(deviations)
    pairs = zip(deviations, scales, strict=True)
    numbers = [plain(round(number, DECIMALS)) for pair in pairs for number in pair]
    return f"scaled-schedule:{'/'.join(numbers)}"
