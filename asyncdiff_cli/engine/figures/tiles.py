"""The images of an evaluation or a training, embedded as they are, with what is known of each."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.cells import Cell, digits_of, signed
from asyncdiff_cli.engine.evaluation.setting import Setting, labels
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import Summary
from asyncdiff_cli.engine.pictures import opened
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.training.run import RunDirectory


class Step(NamedTuple):
    """A denoiser call of an image."""

    number: int
    time: str
    """t, as the baseline of as many steps was conditioned on; empty without one."""
    cond_sigma: str
    """t*."""
    deviation: str
    """D before γ; the first call has none."""


@dataclass(frozen=True)
class Tile:
    """An image, and what stands beside its large view."""

    title: str
    prompt: str
    uri: str
    """The file's own bytes."""
    width: int
    height: int
    facts: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Cell] = field(default_factory=dict)
    """The scores by metric; differences are to the baseline of the same prompt, noise and steps."""
    steps: Sequence[Step] = ()


class TileRow(NamedTuple):
    """Images of one prompt and noise; None where none was kept."""

    prompt: str
    category: str
    tiles: Sequence[Tile | None]


class Grid(NamedTuple):
    """Rows of images, each as many as there are columns."""

    columns: Sequence[str]
    rows: Sequence[TileRow]


def store_grid(store: Store, summary: Summary) -> Grid:
    """The images that were kept: a row per prompt and noise, a column per setting.

    Raises:
        AsyncDiffError: if the store is damaged.
    """
    columns = ["prompt", "category", "deviations", "cond_sigmas", "image"]
    metrics = [*store.rewards, *store.imported]
    groups: dict[tuple[int, int], dict[Setting, dict[str, Any]]] = {}
    table = store.read([*columns, *metrics])
    pictured = table.filter(pc.is_valid(table["image"]))["prompt_id"].unique()
    for row in table.filter(pc.is_in(table["prompt_id"], pictured)).to_pylist():
        groups.setdefault((row["prompt_id"], row["seed"]), {})[Setting.of(row)] = row
    with_images = [
        group for group in groups.values() if any(row["image"] for row in group.values())
    ]
    kept = {setting for group in with_images for setting, row in group.items() if row["image"]}
    shown = [result.setting for result in summary.results if result.setting in kept]
    above = labels(shown)
    baselines = {r.setting.steps: r.setting for r in summary.results if r.is_baseline}
    rows = []
    for group in with_images:
        first = next(iter(group.values()))
        tiles = [
            _tile(store, group.get(setting), group.get(baselines[setting.steps]), label, metrics)
            for setting, label in zip(shown, above, strict=True)
        ]
        rows.append(TileRow(first["prompt"], first["category"] or "", tiles))
    return Grid(above, rows)


def sample_grid(run: RunDirectory, best: int | None) -> Grid:
    """The last of a run's sample panels, and that of the best iteration if it is another one."""
    iterations = run.samples()
    rows = []
    for iteration in (n for n in iterations if n in (best, iterations[-1])):
        name = f"iteration {iteration}"
        label = f"{name}, the best by held-out reward" if iteration == best else name
        tile = _embedded(run.sample(iteration), label, "the run's fixed prompts")
        rows.append(TileRow(label, "", [tile]))
    return Grid(["synchronous beside the module"], rows)


def _tile(
    store: Store,
    row: Mapping[str, Any] | None,
    base: Mapping[str, Any] | None,
    label: str,
    metrics: Sequence[str],
) -> Tile | None:
    if row is None or row["image"] is None:
        return None
    deviations = row["deviations"]
    facts = {
        "policy": row["policy"],
        "γ": plain(row["gamma"]),
        "mean D": signed(sum(deviations) / max(1, len(deviations)), 3),
        "steps": str(row["num_inference_steps"]),
        "noise seed": str(row["seed"]),
    }
    scores = {name: _score(name, row, base) for name in metrics if row[name] is not None}
    times = _three(base["cond_sigmas"]) if base else [""] * len(row["cond_sigmas"])
    signs = ["", *(signed(deviation, 3) for deviation in deviations)]
    columns = zip(times, _three(row["cond_sigmas"]), signs, strict=True)
    steps = [Step(number, *values) for number, values in enumerate(columns, 1)]
    path = store.image(row["image"])
    return _embedded(path, label, row["prompt"], facts=facts, scores=scores, steps=steps)


def _score(metric: str, row: Mapping[str, Any], base: Mapping[str, Any] | None) -> Cell:
    digits, value = digits_of(metric), row[metric]
    if base is None or base is row or base[metric] is None:
        return Cell(value, f"{value:.{digits}f}")
    difference = signed(value - base[metric], digits)
    return Cell(value, f"{value:.{digits}f}", difference)


def _three(values: Iterable[float]) -> list[str]:
    return [f"{value:.3f}" for value in values]


def _embedded(path: Path, title: str, prompt: str, **known: Any) -> Tile | None:
    """A file as a tile; None if it is missing or no image."""
    try:
        with opened(path) as image:
            kind, size = image.format, image.size
        content = path.read_bytes()
    except (InputError, OSError):
        return None
    if kind != "PNG":
        return None
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Tile(title, prompt, uri, *size, **known)
