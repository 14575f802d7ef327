"""The commands that draw the rows of a store again, as far as a store tells."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import Field

from asyncdiff_cli.engine.backbones.choice import RecordedSettings, flag
from asyncdiff_cli.engine.backbones.registry import BASELINE, REGISTRY
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.limits import MAX_BATCH
from asyncdiff_cli.engine.policies.recorded import RecordedPolicy, member_of
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.reading import Read, parse_json
from asyncdiff_cli.engine.repository import is_pinned
from asyncdiff_cli.engine.rewards import entry

UNRECORDED = (
    "Not recorded, and so not in it: shards and processes, batches that were halved because they"
    " did not fit, and where local copies of weights and prompts lie. Floating point repeats to"
    " the bit only in the same batches, on the same device and with the same versions."
)


class Recorded(Read):
    """What is read of a row's provenance."""

    policy: RecordedPolicy | None = None
    index: int = 0
    device: str | None = None
    versions: dict[str, str] = Field({})
    batch: list[Any] = Field([], max_length=MAX_BATCH)


class Origin(NamedTuple):
    """What rows have in common that the settings do not tell."""

    device: str | None
    versions: tuple[tuple[str, str], ...]
    """The versions of packages."""
    batch: int
    """How many images were drawn at once."""


def origins(store: Store) -> list[Origin]:
    """The distinct ones of a store's rows, in their order.

    Raises:
        InputError: for a provenance that is damaged.
    """
    texts = store.read(["provenance"])["provenance"].to_pylist()
    where = f"provenance in {store.path}"
    return list(dict.fromkeys(_origin(parse_json(text, Recorded, where)) for text in texts))


def eval_commands(store: Store, drawn_on: Iterable[Origin]) -> list[str]:
    """Lines for a shell, which draw into a directory of the store's name.

    There are several where some numbers of steps have other policies than others; each goes on
    with what the one before it has drawn. DIR stands for a directory that is not recorded.

    Args:
        drawn_on: the origins of the store's pictures.
    """
    rows, commits = store.read(["image"]).to_pylist(), _at_commits(store)
    policies: dict[int, set[tuple[str, float]]] = {}
    for row in rows:
        pairs = policies.setdefault(row["num_inference_steps"], set())
        pairs.add((commits.get(row["policy"], row["policy"]), row["gamma"]))
    groups: dict[frozenset[tuple[str, float]], list[int]] = {}
    for steps in sorted(policies):
        groups.setdefault(frozenset(policies[steps]), []).append(steps)
    shared = {**_model(store.settings), **_amount(store.settings, rows), **_machine(drawn_on)}
    return [
        _line({
            "--policies": ",".join(map(_policy, sorted(asked, key=_baseline_first))),
            "--steps": ",".join(map(str, steps)),
            **shared,
            "--out": store.path.resolve().name,
        })
        for asked, steps in groups.items()
    ]  # fmt: skip


def _at_commits(store: Store) -> dict[str, str]:
    """The policies of hub repositories by their labels, each as a line that names the commit."""
    table = store.read(["provenance"])
    firsts = table.group_by("policy", use_threads=False).aggregate([("provenance", "first")])
    found = {}
    for label, text in zip(
        *(firsts[name].to_pylist() for name in firsts.column_names), strict=True
    ):
        source = _source(parse_json(text, Recorded, f"provenance in {store.path}"))
        if is_pinned(source):
            found[label] = f"{label.partition(':')[0]}:{source}"
    return found


def _source(record: Recorded) -> str | None:
    """The place of the policy that an image was drawn with, of those of its batch."""
    policy = record.policy
    if policy is None:
        return None
    if not policy.policies:
        return policy.source
    place = member_of(policy.images, record.index)
    return policy.policies[place].source if place < len(policy.policies) else None


def _origin(record: Recorded) -> Origin:
    return Origin(record.device, tuple(record.versions.items()), len(record.batch))


def _baseline_first(policy: tuple[str, float]) -> tuple[bool, tuple[str, float]]:
    return policy[0] != BASELINE, policy


def _policy(policy: tuple[str, float]) -> str:
    """A policy as `read_policy` reads it; the place of a module may hold an @ of its own."""
    label, gamma = policy
    return label if gamma == 1 and "@" not in label else f"{label}@{plain(gamma)}"


def _model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options that choose the backbone and the rewards."""
    known = REGISTRY.get(settings["backbone"])
    from_hub = settings.get("revision") is not None  # also where a LoRA has a fingerprint
    local = known is not None and known.repo is not None and not from_hub
    dtypes = {
        reward["dtype"]
        for name, reward in settings["rewards"].items()
        if reward.get("dtype", "") not in ("", entry(name).dtype)
    }
    sets = settings.get("set_metrics", {})
    return {
        "--backbone": settings["backbone"],
        "--revision": settings.get("revision"),
        "--model-path": "DIR" if local else None,
        **{flag(name): settings.get(name) for name in RecordedSettings.model_fields},
        "--guidance": settings.get("guidance_scale"),
        "--size": settings.get("size"),
        "--rewards": ",".join(settings["rewards"]),
        "--set-metrics": ",".join(sets) or None,
        "--reference": "DIR" if sets else None,
        "--reward-dtype": dtypes.pop() if len(dtypes) == 1 else None,
    }


def _amount(settings: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Options that choose what is drawn."""
    places = [(row["prompt_id"], row["image"]) for row in rows]
    noises = Counter(place for place, _ in {(row["prompt_id"], row["seed"]) for row in rows})
    images = max(noises.values())
    return {
        "--dataset": settings.get("dataset"),
        "--limit": 1 + max(place for place, _ in places),
        "--num-images": images if images > 1 else None,
        "--seed": settings.get("seed"),
        "--images": 1 + max((place for place, image in places if image), default=-1),
    }


def _machine(drawn_on: Iterable[Origin]) -> dict[str, Any]:
    """Options that choose where and how it is drawn."""
    devices, batches = {origin.device for origin in drawn_on}, [origin.batch for origin in drawn_on]
    # batches are of whole prompts: asked for the largest one, all come out as they were
    return {
        "--batch-size": max(batches, default=0) or None,
        "--device": "cpu" if devices == {"cpu"} else None,
    }


def _line(options: Mapping[str, Any]) -> str:
    """A command with a line per option, without those that are None."""
    given = [line for name, value in options.items() for line in _option(name, value)]
    return " \\\n    ".join(["asyncdiff eval", *given])


def _option(name: str, value: Any) -> list[str]:
    """An option as often as it has values; a switch has none to write."""
    if value is True:
        return [name]
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [
        shlex.join([name, plain(item) if isinstance(item, float) else str(item)]) for item in values
    ]
