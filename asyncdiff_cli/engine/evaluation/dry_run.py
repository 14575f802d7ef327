"""What a comparison would draw into a store, as far as that is told without torch.

Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.registry import BackboneEntry, branches, evaluations
from asyncdiff_cli.engine.drawing.dry_run import look_up_model
from asyncdiff_cli.engine.evaluation.comparison import Comparison
from asyncdiff_cli.engine.evaluation.contender import key_of
from asyncdiff_cli.engine.evaluation.setting import Setting
from asyncdiff_cli.engine.evaluation.shards import places
from asyncdiff_cli.engine.evaluation.store import Store


def evaluation_cost(
    wanted: Comparison,
    out: Path,
    measure: bool = False,
    on_import: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """What a comparison would draw into a store, and what is there, as JSON values.

    Args:
        measure: whether the model is traced, for the memory that it needs. Others than those that
            are known by name always are.
        on_import: called once torch and diffusers are imported, if they are.

    Raises:
        InputError, AsyncDiffError: as `Comparison.check`, `Comparison.count_prompts` and
            `look_up_model`.
    """
    wanted.check(out)
    count = wanted.count_prompts()
    entry, size, needs = look_up_model(
        wanted.choice, wanted.size, wanted.guidance, wanted.batch_on, measure, on_import
    )
    device = str(needs.model.device).partition(":")[0]
    return {
        "dry_run": True,
        "store": str(out),
        **_drawn(wanted, out, count, entry, needs.model.scheduler),
        "rewards": wanted.reward_names(),
        "set_metrics": [*wanted.set_metrics],
        "guidance": entry.guidance(wanted.guidance),
        "size": wanted.size or size or None,
        "batch_size": wanted.batch_on(device),
        **needs.to_dict(),
    }


def _drawn(
    wanted: Comparison, out: Path, count: int, entry: BackboneEntry, solver: str | None
) -> dict[str, Any]:
    """The images of a shard, by rows of the table, and at most how many denoiser calls those take
    that are not in the store.

    Args:
        count: prompts of all shards.
    """
    done = set() if Store.is_new(out) else Store(out).keys()
    bounds = {key.policy: key.bound for key in done}  # a label there is one policy
    numbers = [
        (place, number)
        for place in places(count, wanted.shard)
        for number in range(wanted.num_images)
    ]
    settings = [
        Setting(spec.label, gamma, bounds.get(spec.label, 0.0), steps)
        for spec, gamma, steps in wanted.rows(entry)
    ]
    there = Counter(
        setting
        for setting in settings
        for place, number in numbers
        if key_of(wanted.seed, place, number, setting) in done
    )
    calls = sum(
        (len(numbers) - there[setting]) * evaluations(solver, setting.steps) for setting in settings
    )
    return {
        "dataset": "the command line" if wanted.texts is not None else wanted.source,
        "prompts": len(numbers) // wanted.num_images,
        "num_images": wanted.num_images,
        "seed": wanted.seed,
        "policies": [
            {
                "policy": setting.policy,
                "gamma": setting.gamma,
                "steps": setting.steps,
                "images": len(numbers),
                "stored": there[setting],
            }
            for setting in settings
        ],
        "images": len(numbers) * len(settings),
        "stored": there.total(),
        "denoiser_calls": branches(entry, wanted.guidance) * calls,
    }
