"""What a module decides in the mean, as a schedule that does the same to all pictures."""

from __future__ import annotations

from pathlib import Path

import torch

from asyncdiff_cli.engine.evaluation.contender import seed_of_noise
from asyncdiff_cli.engine.files import write_text
from asyncdiff_cli.engine.policies.actions import SPACING
from asyncdiff_cli.engine.policies.learned import LearnedDeviation
from asyncdiff_cli.engine.policies.specs import make_policy, plain, read_policy
from asyncdiff_cli.engine.policies.watched import WatchedScales
from asyncdiff_cli.engine.reading import Read, read_json
from asyncdiff_cli.engine.schedules.request import BATCH_SIZE
from benchmarks.evidence.bench import Bench
from benchmarks.evidence.plan import AVERAGED, Plan
from benchmarks.evidence.rows import HEUN, MEAN, as_policy
from benchmarks.reports import slug

DECIMALS = 4


class _Kept(Read):
    """What a file of a module's mean decisions holds."""

    module: str
    """The module's fingerprint."""
    policy: str


def mean_policies(plan: Plan, bench: Bench, steps: int, out: Path) -> dict[str, str]:
    """The policies of the modules' mean decisions, by module; what is in a folder is read.

    There is none that the plan leaves out, of a module for Heun, which evaluates twice a step, of
    one that moves the grid, or of a policy that is no module.

    Raises:
        InputError, AsyncDiffError: as `make_policy`, and for a damaged file.
    """
    found = {}
    for name, module in plan.modules.items():
        if plan.only is not None and MEAN.format(name) not in plan.only:
            continue
        spec = read_policy(module.policy(steps))
        policy = make_policy(spec, plan.entry)
        if not isinstance(policy, LearnedDeviation) or module.solver == HEUN:
            continue
        if SPACING in policy.tpm.actions:
            continue
        file = out / f"mean-{slug(name)}-{steps}.json"
        kept = read_json(file, _Kept) if file.is_file() else None
        if kept is None or kept.module != policy.fingerprint:
            mean = _mean(plan, bench, policy, module.solver, steps)
            kept = _Kept(module=policy.fingerprint, policy=mean)
            write_text(file, kept.model_dump_json() + "\n")
        found[name] = kept.policy
    return found


def _mean(plan: Plan, bench: Bench, policy: LearnedDeviation, solver: str, steps: int) -> str:
    """The policy of the mean decisions on the first prompts that rows are tuned on."""
    prompts, canvas = plan.chosen_on, bench.evaluation.canvas
    bench.put(solver, None)
    texts = [prompts.texts.texts[index] for index in prompts.order[:AVERAGED]]
    encoded, size = bench.encode(texts), plan.batch_size or BATCH_SIZE
    deviations, scales = [], []
    for first in range(0, len(texts), size):
        own = [encoded[text] for text in texts[first : first + size]]
        seeds = [seed_of_noise(prompts.seed, first + n, 0) for n in range(len(own))]
        watched = WatchedScales(policy, [])
        deviations.append(canvas.sample(own, seeds, watched, steps).deviations)
        if watched.scales:
            scales.append(torch.stack(watched.scales, dim=1))
    mean = torch.cat(deviations).mean(0).tolist()
    if not scales:
        return as_policy(mean)
    pairs = zip(mean, torch.cat(scales).mean(0).tolist(), strict=True)
    numbers = [plain(round(number, DECIMALS)) for pair in pairs for number in pair]
    return f"scaled-schedule:{'/'.join(numbers)}"
