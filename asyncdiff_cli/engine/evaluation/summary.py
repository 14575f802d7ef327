"""What an evaluation found: each setting's metrics, beside the baseline's on the same noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asyncdiff_cli.engine.backbones.registry import BASELINE
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.evaluation.setting import SETTING, Setting
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.store_rows import features_of
from asyncdiff_cli.engine.files import REFERENCE
from asyncdiff_cli.engine.prompts.compbench import T2I_CATEGORIES
from asyncdiff_cli.engine.rewards.world.questions import NEEDS
from asyncdiff_cli.engine.statistics import Difference, all_paired
from asyncdiff_cli.engine.text import one_line

_Row = TypeVar("_Row")

AT_BOUND = 0.999
"""A deviation of this share of its bound counts as at it."""


@dataclass(frozen=True)
class Result:
    """A row of a table."""

    setting: Setting
    metrics: Mapping[str, Difference]
    """The metrics by name; differences are to the baseline of as many steps."""
    scores: Mapping[str, np.ndarray]
    """The scores of each reward [n], in the order of the prompts, as in all rows; of a set metric
    the terms whose mean it is."""
    deviations: np.ndarray
    """D before γ, [n, evaluations − 1]."""
    seconds: float
    """Mean time to draw and decode an image."""
    grid: tuple[float, ...] = ()
    """t of each evaluation, [evaluations], as the baseline of as many steps was told it; empty if
    there is none."""

    @property
    def step_sizes(self) -> np.ndarray:
        """How far each decision's evaluation moves the latent, of the whole way from 1 to 0:
        t_k − t_{k+1}, [evaluations − 1]."""
        times = np.array(self.grid)
        below = [max((other for other in times if other < t), default=0.0) for t in times]
        return (times - below)[1:]

    @property
    def is_baseline(self) -> bool:
        return self.setting.policy == BASELINE

    @property
    def mean_deviation(self) -> float:
        """The mean over images and decisions; 0 for a run of one step."""
        return float(self.deviations.mean()) if self.deviations.size else 0.0

    @property
    def at_bound(self) -> np.ndarray:
        """The share of images at either end of the bound, by decision, [evaluations − 1]."""
        return (np.abs(self.deviations) >= AT_BOUND * self.setting.bound).mean(0)


@dataclass(frozen=True)
class Summary:
    """All rows of a store."""

    settings: Mapping[str, Any]
    """The store's."""
    rewards: tuple[str, ...]
    """Columns of scores, the imported ones last."""
    results: tuple[Result, ...]
    """The results by number of steps, each with its baseline first."""
    prompts: int
    """The prompts that every row has, and that the means are over."""
    partial: int
    """The other prompts, of which some row lacks what these have."""
    set_metrics: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What to know about the values of set metrics."""
    imported: tuple[str, ...] = ()
    """The columns of scores that other programs have given, the last of the rewards."""
    categories: Mapping[str, Summary] = field(default_factory=dict)
    """The summary of each category by itself, for a set that has some, by rewards alone: a
    reference for set metrics has all categories."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """All columns of numbers: rewards, and what is measured of whole sets."""
        return (*self.rewards, *self.set_metrics)

    def result(self, setting: Setting) -> Result | None:
        """The row of a setting, if there is one."""
        return next((result for result in self.results if result.setting == setting), None)

    def baseline(self, steps: int) -> Result:
        """The baseline of a number of steps."""
        return next(r for r in self.results if r.is_baseline and r.setting.steps == steps)


def summarize(store: Store, category: str | None = None, intervals: bool = True) -> Summary:
    """Compare every setting of a store with the baseline, over the prompts that all settings have.

    Args:
        category: only prompts of this category, as `Summary.categories` has them.
        intervals: without them the results have no metrics, only scores and deviations, and there
            are no categories.

    Raises:
        InputError: if there is no such prompt, or no baseline for a number of steps.
        AsyncDiffError: if the store is damaged.
    """
    sets = store.set_metrics if category is None and intervals else ()
    columns = ["deviations", "cond_sigmas", "seconds", "category", *map(features_of, sets)]
    table = store.read([*store.rewards, *store.imported, *columns])
    if category is not None:
        return _category(store, table, category)
    whole = _summarize(store, table, sets, intervals)
    return replace(whole, categories=_categories(store, table)) if intervals else whole


def _categories(store: Store, table: pa.Table) -> dict[str, Summary]:
    """The categories that can be compared yet, in the order of the set that has them."""
    names = set(table["category"].unique().to_pylist()) - {None}
    known = [name for name in (*T2I_CATEGORIES, *NEEDS) if name in names]
    parts = {}
    for name in [*known, *sorted(names - {*known})]:
        with suppress(InputError):  # not all policies have drawn a prompt of it yet
            parts[name] = _category(store, table, name)
    return parts


def _category(store: Store, table: pa.Table, name: str) -> Summary:
    return _summarize(store, table.filter(pc.equal(table["category"], name)), (), True, name)


def _summarize(
    store: Store, table: pa.Table, sets: Sequence[str], intervals: bool, category: str = ""
) -> Summary:
    """The summary of some rows. Raises: as `summarize`."""
    if not len(table):
        raise InputError(f"{store.path} has no rows" + (f" of {category}" if category else ""))
    settings = distinct_settings(table)
    complete, prompts, partial = complete_rows(table, len(settings))
    if not prompts:
        raise InputError(f"{store.path} has no prompt yet that all policies have drawn: go on")
    kept = table.filter(pa.array(complete))
    parts = {setting: kept.filter(_of(setting)) for setting in settings}
    ordered = sorted(parts, key=lambda s: (s.steps, s.policy != BASELINE))
    scores = {s: {name: parts[s][name].to_numpy() for name in store.rewards} for s in ordered}
    imported, lacking = _add_imported(store, {s: parts[s] for s in ordered}, scores)
    notes = measure_sets(store, sets, {s: parts[s] for s in ordered}, scores)
    prompt_ids = parts[ordered[0]]["prompt_id"].to_numpy()
    metrics = _metrics(store, scores, prompt_ids) if intervals else {}
    grids = {
        s.steps: tuple(parts[s]["cond_sigmas"][0].as_py()) for s in ordered if s.policy == BASELINE
    }
    results = tuple(
        _result(s, parts[s], scores[s], metrics.get(s, {}), grids.get(s.steps, ())) for s in ordered
    )
    return Summary(
        store.settings,
        (*store.rewards, *imported),
        results,
        prompts,
        partial,
        tuple(sets),
        (*notes, *lacking, *unpaired(table, complete)),
        tuple(imported),
    )


def complete_rows(table: pa.Table, settings: int) -> tuple[np.ndarray, int, int]:
    """Which rows are compared, and how many prompts they are of; and how many others there are.

    A noise of a prompt is complete where all settings have it, and all prompts that are compared
    have equally many.
    """
    noises = np.column_stack([table["prompt_id"].to_numpy(), table["seed"].to_numpy()])
    noises, which, counts = np.unique(noises, axis=0, return_inverse=True, return_counts=True)
    whole = counts == settings  # for rows are distinct
    prompts, prompt_of = np.unique(noises[:, 0], return_inverse=True)
    images = np.bincount(prompt_of[whole], minlength=len(prompts))
    kept = (images == images.max()) & (images > 0)
    whole &= kept[prompt_of]
    return whole[which.ravel()], int(kept.sum()), int((~kept).sum())


def unpaired(table: pa.Table, complete: np.ndarray) -> list[str]:
    """What to say of the noises that are left out of prompts that are compared, if there are any.

    Args:
        complete: as `complete_rows` returns it.
    """
    prompt_ids = table["prompt_id"].to_numpy()
    images = int((np.isin(prompt_ids, prompt_ids[complete]) & ~complete).sum())
    said = "images of the compared prompts are left out, for some policy has not drawn their noise"
    return [f"{said}: {images:,}"] if images else []


def _add_imported(
    store: Store,
    parts: Mapping[Setting, pa.Table],
    scores: Mapping[Setting, dict[str, np.ndarray]],
) -> tuple[list[str], list[str]]:
    """Add to the scores of each setting what other programs have said of its images.

    Returns:
        The columns that there are scores of all settings in, and what to know about columns.
    """
    columns, notes = [], []
    for name in store.imported:
        values = {setting: part[name].to_numpy() for setting, part in parts.items()}
        scored = np.isfinite(np.stack([*values.values()]))
        if scored.all(0).any():
            columns.append(name)
            for setting, column in values.items():
                scores[setting][name] = column
        if scored.any() and not scored.all():
            notes.append(
                f"{name} is of the {int(scored.all(0).sum()):,} of {scored.shape[1]:,} images for"
                " which it has scores of all policies; export and import-scores bring the others"
            )
    return columns, notes


def measure_sets(
    store: Store,
    names: Sequence[str],
    parts: Mapping[_Row, pa.Table],
    scores: Mapping[_Row, dict[str, np.ndarray]],
) -> tuple[str, ...]:
    """Add to the scores of each row of a table the terms of set metrics; what to know about them.

    Args:
        store: whose reference the pictures are compared with.
        names: of the set metrics.
        parts: the rows of a store that each row of the table has.

    Raises:
        AsyncDiffError: if the store lacks the reference's statistics.
    """
    if not names:
        return ()
    import torch

    from asyncdiff_cli.engine.evaluation.set_metrics import get
    from asyncdiff_cli.engine.evaluation.set_metrics.reference_statistics import read_statistics

    notes = []
    for name, statistics in read_statistics(store.path, names).items():
        try:
            terms = get(name).against(statistics)
            for row, part in parts.items():
                values = pc.list_flatten(part[features_of(name)]).to_numpy()
                features = torch.tensor(values.reshape(len(part), -1))
                scores[row][name] = terms(features).numpy()
        except (KeyError, RuntimeError, ValueError) as error:
            raise AsyncDiffError(
                f"the rows of {store.path} and its {REFERENCE} do not fit together in {name}:"
                f" {one_line(error)}"
            ) from None
        notes.append(get(name).note(*features.shape))
    return tuple(filter(None, notes))


def _metrics(
    store: Store, scores: Mapping[Setting, Mapping[str, np.ndarray]], prompt_ids: np.ndarray
) -> dict[Setting, dict[str, Difference]]:
    """Each setting's scores beside those of the baseline of as many steps, averaged by prompt.

    The noises of one prompt are no prompts of their own, and so are resampled together.

    Raises:
        InputError: if a number of steps has none.
    """
    baselines = {setting.steps: setting for setting in scores if setting.policy == BASELINE}
    if lacking := [setting.steps for setting in scores if setting.steps not in baselines]:
        raise InputError(
            f"{store.path} has no baseline of {lacking[0]} steps to compare with: evaluate"
            " with --policies baseline,…"
        )
    means = {
        name: _by_prompt({setting: scores[setting][name] for setting in scores}, prompt_ids)
        for name in next(iter(scores.values()))
    }
    differences: dict[Setting, dict[str, Difference]] = {setting: {} for setting in scores}
    for count in {len(next(iter(by_setting.values()))) for by_setting in means.values()}:
        pairs = {
            (setting, name): (by_setting[setting], by_setting[baselines[setting.steps]])
            for name, by_setting in means.items()
            for setting in scores
            if len(by_setting[setting]) == count
        }
        for (setting, name), difference in zip(pairs, all_paired([*pairs.values()]), strict=True):
            differences[setting][name] = difference
    return {s: {name: differences[s][name] for name in scores[s]} for s in scores}


def _by_prompt(
    scores: Mapping[Setting, np.ndarray], prompt_ids: np.ndarray
) -> dict[Setting, np.ndarray]:
    """The mean score of each prompt's images, those that all settings have scores of."""
    scored = np.isfinite(np.stack(list(scores.values()))).all(0)
    _, prompt_of, counts = np.unique(prompt_ids[scored], return_inverse=True, return_counts=True)
    return {s: np.bincount(prompt_of, own[scored]) / counts for s, own in scores.items()}


def distinct_settings(table: pa.Table) -> list[Setting]:
    """The distinct settings, in the order of the store."""
    distinct = table.select(SETTING).group_by(list(SETTING), use_threads=False).aggregate([])
    return [Setting.of(row) for row in distinct.to_pylist()]


def _of(setting: Setting) -> pc.Expression:
    tests = [pc.field(name) == value for name, value in zip(SETTING, setting, strict=True)]
    return tests[0] & tests[1] & tests[2] & tests[3]


def _result(
    setting: Setting,
    rows: pa.Table,
    scores: Mapping[str, np.ndarray],
    metrics: Mapping[str, Difference],
    grid: tuple[float, ...],
) -> Result:
    deviations = pc.list_flatten(rows["deviations"]).to_numpy().astype(np.float32)
    seconds = float(rows["seconds"].to_numpy().mean())
    return Result(setting, metrics, scores, deviations.reshape(len(rows), -1), seconds, grid)
