"""The rows of a store as Arrow tables: their columns, their keys, and which of them are one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc


class Key(NamedTuple):
    """What tells a row from all others of its evaluation."""

    prompt_id: int
    """The prompt's place in the evaluation's prompts."""
    seed: int
    """The seed of its initial noise."""
    policy: str
    """The policy as `parse_policy` labels it: "learned", "fixed:0.5"."""
    gamma: float
    bound: float
    num_inference_steps: int


COLUMNS: dict[str, pa.DataType] = {
    "prompt_id": pa.int32(),
    "prompt": pa.string(),
    "category": pa.string(),
    "seed": pa.int64(),
    "policy": pa.string(),
    "gamma": pa.float64(),
    "bound": pa.float64(),
    "num_inference_steps": pa.int32(),
    "deviations": pa.list_(pa.float32()),
    "cond_sigmas": pa.list_(pa.float32()),
    "seconds": pa.float64(),
    "policy_settings": pa.string(),
    "image": pa.string(),
    "provenance": pa.string(),
}
"""Columns before the rewards'. `deviations` [K − 1] are before γ; `seconds` is the image's share
of its batch's drawing and decoding; `image` is relative to the store; `policy_settings` and
`provenance` are JSON."""
MAY_LACK = ("category", "image")


def features_of(set_metric: str) -> str:
    """The column of a set metric's features [F] of each image."""
    return f"{set_metric}_features"


def schema_of(rewards: Iterable[str], set_metrics: Iterable[str]) -> pa.Schema:
    """The columns of a store, with a score per reward and features per set metric."""
    features = dict.fromkeys(map(features_of, set_metrics), pa.list_(pa.float32()))
    return pa.schema({**COLUMNS, **dict.fromkeys(rewards, pa.float64()), **features})


def find_problem(rows: pa.Table) -> str:
    """What rows have that no evaluation writes; "" for nothing."""
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        numbers = pc.list_flatten(column) if pa.types.is_list(column.type) else column
        lacking = column.null_count if name not in MAY_LACK else 0
        if lacking or numbers.null_count > column.null_count:
            return f"{name} has empty places"
        measured = pa.types.is_floating(numbers.type) and name != "bound"
        if measured and not pc.all(pc.is_finite(numbers), min_count=0).as_py():
            return f"{name} has a value that is no number"
    return ""


def keys_of(table: pa.Table) -> list[Key]:
    columns = (table[name].to_pylist() for name in Key._fields)
    return list(map(Key._make, zip(*columns, strict=True)))


def unseen_rows(table: pa.Table, seen: set[Key]) -> pa.Table:
    """The rows whose keys are not among those that were seen, and now are."""
    fresh = []
    for key in keys_of(table):
        fresh.append(key not in seen)
        seen.add(key)
    return table.filter(pa.array(fresh, pa.bool_()))


def distinct_rows(table: pa.Table) -> pa.Table:
    """The first row of each key, sorted by key."""
    keys = table.select(Key._fields).combine_chunks()
    numbered = keys.append_column("row", pa.array(range(len(table)), pa.int64()))
    first = numbered.group_by(list(Key._fields)).aggregate([("row", "min")])
    order = pc.sort_indices(first, [(name, "ascending") for name in Key._fields])
    return table.combine_chunks().take(first["row_min"].take(order))


def described(table: pa.Table) -> list[tuple[str, str]]:
    """The distinct policies of rows, each with its settings."""
    columns = ["policy", "policy_settings"]
    policies = table.select(columns).group_by(columns).aggregate([]).to_pylist()
    return [(row["policy"], row["policy_settings"]) for row in policies]
