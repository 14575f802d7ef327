"""An evaluation or a training run as one HTML file that loads nothing from elsewhere.

Tables are those of `tables`, charts those of `plots` as inline SVG, and images the files that were
kept, so that their provenance is in the report. The same data give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

import asyncdiff_cli
from asyncdiff_cli.engine import yaml12
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.cells import (
    Cell,
    deviation_cell,
    digits_of,
    heading,
    metric_cell,
)
from asyncdiff_cli.engine.evaluation.reproduce import UNRECORDED, Origin, eval_commands, origins
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.store_rows import described
from asyncdiff_cli.engine.evaluation.summary import BASELINE, Summary, summarize
from asyncdiff_cli.engine.evaluation.tables import OURS, TableBlock, blocks, category_blocks
from asyncdiff_cli.engine.figures.distributions import CHOOSING, EVALUATION, is_store
from asyncdiff_cli.engine.figures.histogram import histogram_figure
from asyncdiff_cli.engine.figures.scaling import AXES, noise_figure, scaling_figure
from asyncdiff_cli.engine.figures.style import figure_svg
from asyncdiff_cli.engine.figures.tiles import Grid, sample_grid, store_grid
from asyncdiff_cli.engine.figures.training import training_figure
from asyncdiff_cli.engine.files import check_writable, inside, write_apart, write_text
from asyncdiff_cli.engine.reading import Read, parse_json, read_text
from asyncdiff_cli.engine.rewards import GUARD
from asyncdiff_cli.engine.statistics import Difference
from asyncdiff_cli.engine.training.run import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NAME = "report.html"
"""The report of the directory that it is in."""
RECIPE = "recipe.yaml"
SCALING = (
    "Each metric over the {}. Points are means over the prompts, bars the 95 % intervals of the"
    " paired difference to the baseline of as many steps."
)
NOISE = (
    "What each metric gains over what that costs in residual noise. Points to the left are noisier"
    " than the baseline: a gain there was bought with noise."
)
HISTOGRAM = (
    "The deviations of all images at each decision, before γ. Black: their mean. At the right: the"
    " share of images at either end of the bound."
)
TRAINING = (
    "The rewards of the training's own images and of the held-out prompts, and the mean deviation"
    " of each step, over the iterations."
)


class Chart(NamedTuple):
    """A figure of the page."""

    svg: str
    caption: str


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


@dataclass(frozen=True)
class RunPart:
    """What the template shows of a training run."""

    facts: Mapping[str, Any]
    charts: Sequence[Chart]
    held_out: Sequence[TableBlock]
    warnings: Sequence[str]
    grid: Grid
    recipe: str


def write_report(path: Path, out: Path) -> Path:
    """Write the report of a store, or of a run with the evaluation in it; returns its path.

    Beside its data it takes the place of the one before; elsewhere it is written as `write_apart`.

    Raises:
        InputError: for a directory of neither, or a store with nothing to compare yet.
        AsyncDiffError: if something in it is damaged, or `out` cannot be written.
    """
    check_writable(out)
    run: RunPart | None = None
    store: StorePart | None = None
    if is_store(path):
        store = store_part(Store(path))
        title = store.title
    elif (path / RECIPE).is_file():
        run = run_part(RunDirectory(path, identity=""))
        title = f"Training of {path.resolve().name}"
        if is_store(path / EVALUATION):
            store = store_part(Store(path / EVALUATION))
    else:
        raise InputError(
            f"{path} holds neither an evaluation nor a training run: give a directory that"
            " `asyncdiff eval`, `sweep` or `train` has written"
        )
    text = _render(title=title, run=run, store=store)
    if out != path / NAME:
        return write_apart(out, text)
    write_text(out, text)
    return out


def store_part(store: Store) -> StorePart:
    """What is shown of a store. Raises: as `write_report`."""
    store = store.held()
    summary, found = summarize(store), origins(store)
    return StorePart(
        _store_title(summary),
        summary,
        blocks(summary),
        [*_scaling_charts(summary), *_noise_chart(summary), *_histogram_chart(summary)],
        category_blocks(summary),
        {name: blocks(own)[0] for name, own in summary.categories.items()},
        store_grid(store, summary),
        summary.prompts + summary.partial,
        _flat(store.settings),
        {label: _pairs(_described(store, own)) for label, own in _policies(store)},
        _versions(found),
        eval_commands(store, found),
    )


def run_part(run: RunDirectory) -> RunPart:
    """What is shown of a training run. Raises: as `write_report`."""
    recipe, rows = read_text(inside(run.path, RECIPE)), run.rows()
    done = max((row["iteration"] for row in rows if "rewards" in row), default=0)
    best = next((row["best"] for row in reversed(rows) if "best" in row), None)
    return RunPart(
        _run_facts(recipe, done, best),
        [_chart(training_figure(rows), "chart-training", TRAINING)] if done else [],
        _held_out(rows, best),
        [row["warning"] for row in rows if "warning" in row],
        sample_grid(run, best),
        recipe,
    )


def _render(**parts: Any) -> str:
    environment = Environment(
        loader=PackageLoader("asyncdiff_cli", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"heading": heading, "source_hash": _source_hash}
    template = environment.get_template("report.html.j2")
    return template.render(version=asyncdiff_cli.__version__, unrecorded=UNRECORDED, **parts)


def _source_hash(script: str) -> str:
    """The hash by which a Content-Security-Policy names the one script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _store_title(summary: Summary) -> str:
    names = [summary.settings.get(name) for name in ("backbone", "dataset")]
    return f"{' on '.join(filter(None, names))}, {summary.prompts:,} prompts"


def _chart(figure: Figure, name: str, caption: str) -> Chart:
    """A figure whose ids begin with a name, for several on a page would share them."""
    svg = figure_svg(figure)
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r'<path (?=id="[^"]*" transform)', '<path d="" ', svg)  # of a space
    # the rule of an inline SVG's style holds for the whole page unless it names the element
    svg = svg.replace('<style type="text/css">*{', f"<style>#{name} *{{")
    head = f'<svg id="{name}" role="img" aria-label="{html.escape(caption)}"'
    return Chart(svg.replace("<svg", head, 1), caption)


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
        _chart(scaling_figure(summary, axis), f"chart-{axis}", SCALING.format(AXES[axis]))
        for axis in _axes(summary)
    ]


def _noise_chart(summary: Summary) -> list[Chart]:
    compared = any(not result.is_baseline for result in summary.results)
    if not compared or GUARD not in summary.rewards or len(summary.rewards) == 1:
        return []
    axis = next(iter(_axes(summary)), "gamma")
    return [_chart(noise_figure(summary, axis), "chart-noise", NOISE)]


def _histogram_chart(summary: Summary) -> list[Chart]:
    several = len({result.setting.steps for result in summary.results}) > 1
    found = {
        f"{result.setting.label}, {result.setting.steps} steps"
        if several
        else result.setting.label: result
        for result in summary.results
        if result.setting.policy.partition(":")[0] in CHOOSING
        and result.setting.gamma == 1
        and result.deviations.size
    }
    return [_chart(histogram_figure(found), "chart-histogram", HISTOGRAM)] if found else []


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are known, with those of a reward or set metric in one line."""
    groups = {"reward": "rewards", "set metric": "set_metrics"}
    apart = ("format", *groups.values())
    found = {k: v for k, v in settings.items() if k not in apart and v is not None}
    for kind, key in groups.items():
        found |= {f"{kind} {name}": _pairs(own) for name, own in settings.get(key, {}).items()}
    return found


def _policies(store: Store) -> list[tuple[str, str]]:
    return sorted(described(store.read(["policy_settings"])), key=lambda p: (p[0] != BASELINE, p))


def _described(store: Store, settings: str) -> Mapping[str, Any]:
    """A policy's settings out of a row. Raises: InputError if it is no JSON object."""
    return parse_json(settings, Read, f"policy_settings in {store.path}").model_extra or {}


def _pairs(settings: Mapping[str, Any]) -> str:
    """The pairs that are known, in a line."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def _versions(found: Sequence[Origin]) -> dict[str, str]:
    """The device and the packages; several where the rows were not drawn with the same."""
    every: dict[str, dict[str, None]] = {}
    for origin in found:
        for name, value in (("device", origin.device), *origin.versions):
            if value is not None:
                every.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in every.items()}


def _run_facts(recipe: str, done: int, best: int | None) -> dict[str, Any]:
    """The recipe in short, and how far the run is.

    Raises:
        InputError: if the recipe is damaged.
    """
    try:
        own = dict(yaml12.load(recipe))
        rewards = ", ".join(f"{name} × {w:g}" for name, w in own["rewards"].items())
        names = ("backbone", "prompts", "bound", "num_inference_steps")
        facts = {name.removeprefix("num_inference_"): own[name] for name in names}
        facts |= {"rewards": rewards, "iterations": f"{done:,} of {own['iterations']:,}"}
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise InputError(f"the run's {RECIPE} is damaged") from None
    return facts if best is None else facts | {"best by held-out reward": f"iteration {best:,}"}


def _held_out(rows: Sequence[Mapping[str, Any]], best: int | None) -> list[TableBlock]:
    """The run's evaluations as a table, the baseline first."""
    found = [row for row in rows if "held_out" in row]
    metrics = list(dict.fromkeys(name for row in found for name in row["held_out"]))
    table = [
        {
            "iteration": Cell(row["iteration"], _iteration(row, best)),
            "mean_deviation": _mean_deviation(row),
            **{name: _held_out_cell(name, row["held_out"].get(name)) for name in metrics},
        }
        for row in found
    ]
    title = (
        "Held-out prompts: mean, and paired difference to the baseline with its 95 % interval."
        " The composite is in standard deviations of the baseline"
    )
    columns = ["iteration", "mean_deviation", *metrics]
    return [TableBlock.of(OURS, title, columns, table)] if found else []


def _iteration(row: Mapping[str, Any], best: int | None) -> str:
    iteration = row["iteration"]
    return (
        f"{iteration:,}, best"
        if iteration == best
        else f"{iteration:,}"
        if iteration
        else "baseline"
    )


def _mean_deviation(row: Mapping[str, Any]) -> Cell:
    values = row.get("deviation", [0.0])
    return deviation_cell(sum(values) / max(1, len(values)))


def _held_out_cell(metric: str, found: Any) -> Cell:
    """The cell of a comparison, or of the baseline's mean, which has no composite."""
    if isinstance(found, Mapping):
        return metric_cell(metric, Difference(**found))
    return Cell(found, "" if found is None else f"{found:.{digits_of(metric)}f}")
