"""The part of a report that shows an evaluation: its tables, charts, images and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncdiff_cli.engine.backbones.registry import BASELINE
from asyncdiff_cli.engine.evaluation.reproduce import Origin, eval_commands, origins
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.store_rows import described
from asyncdiff_cli.engine.evaluation.summary import Summary, summarize
from asyncdiff_cli.engine.evaluation.tables import TableBlock, blocks, category_blocks
from asyncdiff_cli.engine.figures.charts import Chart, inline_chart
from asyncdiff_cli.engine.figures.histogram import histogram_figure
from asyncdiff_cli.engine.figures.scaling import AXES, noise_figure, scaling_figure
from asyncdiff_cli.engine.figures.tiles import Grid, store_grid
from asyncdiff_cli.engine.policies.table import CHOOSING
from asyncdiff_cli.engine.reading import Read, parse_json
from asyncdiff_cli.engine.rewards import GUARD

SCALING_CAPTION = (
    "Each metric over the {}. Points are means over the prompts, bars the 95 % intervals of the"
    " paired difference to the baseline of as many steps."
)
NOISE_CAPTION = (
    "What each metric gains over what that costs in residual noise. Points to the left are noisier"
    " than the baseline: a gain there was bought with noise."
)
HISTOGRAM_CAPTION = (
    "The deviations of all images at each decision, before γ. Black: their mean. At the right: the"
    " share of images at either end of the bound."
)


@dataclass(frozen=True)
class StorePart:
    """What the template shows of a store."""

    title: str
    summary: Summary
    blocks: Sequence[TableBlock]
    charts: Sequence[Chart]
    by_category: Sequence[TableBlock]
    """A block per reward, with a column per category."""
    categories: Mapping[str, TableBlock]
    grid: Grid
    places: int
    """Prompts with rows, also of some policies only."""
    settings: Mapping[str, Any]
    policies: Mapping[str, str]
    versions: Mapping[str, str]
    commands: Sequence[str]


def store_part(store: Store) -> StorePart:
    """What is shown of a store. Raises: as `write_report`."""
    store = store.held()
    summary, image_origins = summarize(store), origins(store)
    return StorePart(
        _store_title(summary),
        summary,
        blocks(summary),
        [*_scaling_charts(summary), *_noise_chart(summary), *_histogram_chart(summary)],
        category_blocks(summary),
        {name: blocks(part)[0] for name, part in summary.categories.items()},
        store_grid(store, summary),
        summary.prompts + summary.partial,
        _flat(store.settings),
        {label: _pairs(_described(store, part)) for label, part in _policies(store)},
        _versions(image_origins),
        eval_commands(store, image_origins),
    )


def _store_title(summary: Summary) -> str:
    names = [summary.settings.get(name) for name in ("backbone", "dataset")]
    return f"{' on '.join(filter(None, names))}, {summary.prompts:,} prompts"


def _axes(summary: Summary) -> list[str]:
    """What the settings vary in, of what can be plotted over."""
    others = [result.setting for result in summary.results if not result.is_baseline]
    fixed = {setting.policy for setting in others if setting.policy.startswith("fixed:")}
    varied = {
        "gamma": len({setting.gamma for setting in others}) > 1,
        "deviation": len(fixed) > 1,
        "steps": len({result.setting.steps for result in summary.results}) > 1,
    }
    return [axis for axis in AXES if varied[axis]]


def _scaling_charts(summary: Summary) -> list[Chart]:
    return [
        inline_chart(
            scaling_figure(summary, axis), f"chart-{axis}", SCALING_CAPTION.format(AXES[axis])
        )
        for axis in _axes(summary)
    ]


def _noise_chart(summary: Summary) -> list[Chart]:
    compared = any(not result.is_baseline for result in summary.results)
    if not compared or GUARD not in summary.rewards or len(summary.rewards) == 1:
        return []
    axis = next(iter(_axes(summary)), "gamma")
    return [inline_chart(noise_figure(summary, axis), "chart-noise", NOISE_CAPTION)]


def _histogram_chart(summary: Summary) -> list[Chart]:
    several = len({result.setting.steps for result in summary.results}) > 1
    results = {
        f"{result.setting.label}, {result.setting.steps} steps"
        if several
        else result.setting.label: result
        for result in summary.results
        if result.setting.policy.partition(":")[0] in CHOOSING
        and result.setting.gamma == 1
        and result.deviations.size
    }
    if not results:
        return []
    return [inline_chart(histogram_figure(results), "chart-histogram", HISTOGRAM_CAPTION)]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are known, with those of a reward or set metric in one line."""
    groups = {"reward": "rewards", "set metric": "set_metrics"}
    apart = ("format", *groups.values())
    known = {k: v for k, v in settings.items() if k not in apart and v is not None}
    for kind, key in groups.items():
        known |= {f"{kind} {name}": _pairs(group) for name, group in settings.get(key, {}).items()}
    return known


def _policies(store: Store) -> list[tuple[str, str]]:
    return sorted(described(store.read(["policy_settings"])), key=lambda p: (p[0] != BASELINE, p))


def _described(store: Store, settings: str) -> Mapping[str, Any]:
    """A policy's settings out of a row. Raises: InputError if it is no JSON object."""
    return parse_json(settings, Read, f"policy_settings in {store.path}").model_extra or {}


def _pairs(settings: Mapping[str, Any]) -> str:
    """The pairs that are known, in a line."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def _versions(image_origins: Sequence[Origin]) -> dict[str, str]:
    """The device and the packages; several where the rows were not drawn with the same."""
    by_name: dict[str, dict[str, None]] = {}
    for origin in image_origins:
        for name, value in (("device", origin.device), *origin.versions):
            if value is not None:
                by_name.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in by_name.items()}
