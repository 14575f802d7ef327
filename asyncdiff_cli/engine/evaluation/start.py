"""An evaluation of what a user asks to have compared: what is loaded, where it is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from asyncdiff_cli.engine.backbones.choice import NEUTRAL, RecordedSettings
from asyncdiff_cli.engine.backbones.memory.footprint import Company
from asyncdiff_cli.engine.backbones.outline import Outline
from asyncdiff_cli.engine.backbones.registry import provisional_entry
from asyncdiff_cli.engine.backbones.source import fetch
from asyncdiff_cli.engine.downloads import OnProgress
from asyncdiff_cli.engine.drawing.canvas import BatchSize
from asyncdiff_cli.engine.drawing.encoding import encode_more
from asyncdiff_cli.engine.drawing.opening import open_canvas
from asyncdiff_cli.engine.dtypes import dtype_name
from asyncdiff_cli.engine.evaluation.comparison import Comparison
from asyncdiff_cli.engine.evaluation.contender import (
    Contender,
    EvaluationCell,
    check_descriptions,
    key,
)
from asyncdiff_cli.engine.evaluation.evaluation import AHEAD, Evaluation
from asyncdiff_cli.engine.evaluation.set_metrics.group import SetMetricGroup
from asyncdiff_cli.engine.evaluation.set_metrics.reference import Reference
from asyncdiff_cli.engine.evaluation.shards import encoded_at, places
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.files import REFUSED, check_directory
from asyncdiff_cli.engine.processes import in_turn, join
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.rewards import check_prompts
from asyncdiff_cli.engine.rewards.group import RewardGroup


def open_evaluation(
    wanted: Comparison,
    out: Path,
    on_progress: OnProgress | None = None,
    on_warning: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Load all that an evaluation needs, and open its store.

    Args:
        on_progress: told about the download of prompts.
        on_warning: told if the model will not fit, before it is loaded.

    Raises:
        InputError: for what can be refused before a model is loaded, or a store of another
            evaluation.
        AsyncDiffError: for what cannot be loaded or written.
    """
    names = wanted.reward_names()
    wanted.contenders(provisional_entry(wanted.choice.name))
    check_directory(out)
    accelerator = join(wanted.choice.device)
    with in_turn(accelerator):
        texts, order = wanted.load_prompts(on_progress)
        outline = Outline.of(wanted.choice, accelerator.device)
        outline.check_side(wanted.size)
        check_prompts(names, [texts.texts[place] for place in order])
        shared = settings(wanted, outline, texts)
        reference = wanted.reference_set
        fingerprint = None if reference is None else reference.fingerprint
        Store.agree(out, shared, names, wanted.set_metrics, fingerprint)
        contenders = wanted.contenders(outline.entry)
        fetch(outline.source)
        scorers, set_metrics = _scorers(wanted, accelerator, out)
    rewards = scorers.ran_with()
    store = _open_store(out, shared, rewards, set_metrics, reference, accelerator)
    check_descriptions(store, contenders)
    batch_size = wanted.batch_on(accelerator.device.type)
    sizes = *scorers.sizes.values(), *set_metrics.sizes.values()
    canvas = open_canvas(
        outline,
        accelerator,
        wanted.guidance,
        wanted.size,
        batch_size,
        _undrawn(wanted, out, contenders, texts, order),
        encoded_at(out, wanted.shard),
        [scorers, set_metrics],
        Company(sizes, wanted.offload_rewards),
        AHEAD + batch_size,
        on_warning,
    )
    return Evaluation(
        accelerator,
        canvas,
        scorers,
        store,
        texts,
        order,
        contenders,
        wanted.seed,
        BatchSize(batch_size),
        wanted.num_kept,
        wanted.shard,
        in_force(wanted, outline, shared, order, batch_size),
        partial(encode_more, outline, (scorers, set_metrics)),
        set_metrics,
        wanted.num_images,
        wanted.parameters,
    )


def _scorers(
    wanted: Comparison, accelerator: Accelerator, out: Path
) -> tuple[RewardGroup, SetMetricGroup]:
    scorers = RewardGroup(
        dict.fromkeys(wanted.reward_names(), 1.0),
        wanted.reward_paths,
        accelerator.device,
        wanted.reward_dtype,
        wanted.offload_rewards,
        keep=out / REFUSED,
    )
    set_metrics = SetMetricGroup(
        wanted.set_metrics, wanted.reward_paths, accelerator.device, wanted.offload_rewards
    )
    return scorers, set_metrics


def _open_store(
    out: Path,
    shared: dict[str, Any],
    rewards: dict[str, Any],
    set_metrics: SetMetricGroup,
    reference: Reference | None,
    accelerator: Accelerator,
) -> Store:
    """The store of these settings, with what set metrics compare with beside it."""
    if reference is not None:
        shared["set_metrics"] = set_metrics.settings(reference)
    store = Store.open(out, {**shared, "rewards": rewards})
    if reference is not None and accelerator.is_main_process:
        set_metrics.keep(reference, shared["size"], out)
    if accelerator.is_main_process and not Store.is_new(out):
        store.compact()
    return store


def _undrawn(
    wanted: Comparison,
    out: Path,
    contenders: Sequence[Contender],
    texts: PromptSet,
    order: Sequence[int],
) -> list[str]:
    """The prompts of this shard of which an image is missing in the store."""
    done = set() if Store.is_new(out) else Store(out).keys()
    return [
        texts.texts[order[place]]
        for place in places(len(order), wanted.shard)
        if not done.issuperset(
            key(wanted.seed, EvaluationCell(place, contender, number))
            for contender in contenders
            for number in range(wanted.num_images)
        )
    ]


def settings(wanted: Comparison, backbone: Outline, prompts: PromptSet) -> dict[str, Any]:
    """What all rows of a store share but the rewards, as JSON values: on another of these they do
    not compare."""
    return {
        "backbone": backbone.name,
        "revision": backbone.revision,
        "fingerprint": backbone.fingerprint,
        "dtype": dtype_name(backbone.dtype),
        "scheduler": backbone.scheduler,
        **_unusual(backbone),
        "guidance_scale": backbone.entry.guidance(wanted.guidance),
        "size": wanted.size or backbone.size,
        "dataset": prompts.name,
        "split": prompts.split,
        "prompts_sha256": prompts.fingerprint,
        "seed": wanted.seed,
    }


def in_force(
    wanted: Comparison,
    outline: Outline,
    shared: Mapping[str, Any],
    order: Sequence[int],
    batch: int,
) -> dict[str, Any]:
    """Every option of a comparison as JSON values, with what it leaves to others filled in.

    Args:
        shared: its `settings`.
        order: the prompts that are drawn.
        batch: how many images are drawn at once.
    """
    own = {each.name: getattr(wanted, each.name) for each in fields(wanted)}
    known = {
        "choice": outline.in_force().to_dict(),
        "steps": wanted.steps or [outline.entry.num_inference_steps],
        "dataset": shared["dataset"],
        "limit": len(order),
        "guidance": shared["guidance_scale"],
        "size": shared["size"],
        "rewards": wanted.reward_names(),
        "batch_size": batch,
        "kept_images": wanted.num_kept,
    }
    values: dict[str, Any] = json.loads(json.dumps({**own, **known}, default=str))
    return {"model": values.pop("choice"), **values}


def _unusual(backbone: Outline) -> dict[str, Any]:
    """The settings of how it draws that are not the default, as JSON values."""
    recorded = backbone.setup.model_dump(mode="json", include={*RecordedSettings.model_fields})
    always = ("scheduler", "dtype")  # which a store names also where they are
    return {
        name: value
        for name, value in recorded.items()
        if value and value != NEUTRAL.get(name) and name not in always
    }
