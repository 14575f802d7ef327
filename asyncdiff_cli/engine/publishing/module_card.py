"""The card of a trained module: its recipe, its curves, and its worth on held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import Summary, summarize
from asyncdiff_cli.engine.evaluation.tables import TableBlock, our_block
from asyncdiff_cli.engine.figures.distributions import RUN_EVALUATION, distributions, is_store
from asyncdiff_cli.engine.figures.histogram import histogram_figure
from asyncdiff_cli.engine.figures.report_run import (
    TRAINING_CAPTION,
    done_and_best,
    held_out_table,
    run_facts,
)
from asyncdiff_cli.engine.figures.report_store import HISTOGRAM_CAPTION
from asyncdiff_cli.engine.figures.training import training_figure
from asyncdiff_cli.engine.policies.actions import DEVIATION, SCALING
from asyncdiff_cli.engine.policies.learned import LearnedDeviation
from asyncdiff_cli.engine.policies.specs import takes_module
from asyncdiff_cli.engine.publishing.card import Card, CardChart, MeasuredOn, drawn_with, whom
from asyncdiff_cli.engine.publishing.material import TrainedModule
from asyncdiff_cli.engine.reading import read_text
from asyncdiff_cli.engine.statistics import Difference
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.run import RECIPE, RunDirectory

OPTION = "--tpm REPOSITORY"
DECIDES = {
    DEVIATION: "how far the time that it is told runs ahead of the sampler's",
    SCALING: "what its velocity is multiplied by",
}
CODE = """\
from asyncdiff_cli.engine import LearnedDeviation, attach

with attach(pipe, LearnedDeviation.load("REPOSITORY")):
    image = pipe("a cat"{arguments}).images[0]"""


@dataclass(frozen=True)
class _Measured:
    """What is known of a module's worth."""

    tables: Sequence[TableBlock] = ()
    charts: Sequence[CardChart] = ()
    results: Sequence[EvalResult] = ()
    lacking: Sequence[str] = ()


def module_card(module: TrainedModule) -> Card:
    """What a module's card says.

    Raises:
        InputError, AsyncDiffError: for a module or a run that is damaged.
    """
    policy = LearnedDeviation.load(module.directory)
    own = {
        "parameters": f"{sum(p.numel() for p in policy.tpm.parameters()):,}",
        "bound": f"{policy.bound:g}",
        "fingerprint": policy.fingerprint,
    }
    decides = " and ".join(DECIDES[action] for action in policy.tpm.actions)
    if module.run is not None:
        return _run_card(RunDirectory(module.run, identity=""), own, decides)
    lacking = "its run is not known: without recipe.yaml beside tpm/ the card has no results"
    return Card(_summary(None, decides), OPTION, CODE.format(arguments=""), own, lacking=[lacking])


def _run_card(run: RunDirectory, own: Mapping[str, Any], decides: str) -> Card:
    """The card of the module of a run."""
    file, rows = run.path / RECIPE, run.rows()
    recipe, text = load_recipe(str(file)), read_text(file)
    steps, guidance = recipe.num_inference_steps, _guidance(recipe)
    measured = _measured(run, recipe, rows)
    return Card(
        _summary(recipe.backbone, decides),
        OPTION,
        CODE.format(arguments=drawn_with(steps, guidance)),
        {**run_facts(text, *done_and_best(rows)), **own},
        recipe.backbone,
        {"--steps": steps, "--guidance": guidance},
        measured.tables,
        [*_curves(rows), *measured.charts],
        measured.results,
        text.strip(),
        measured.lacking,
    )


def _summary(backbone: str | None, decides: str) -> str:
    return (
        f"A timestep prediction module: it chooses for {whom(backbone)}, at each step and for each"
        f" image, {decides}, as rewards have taught it. The image model is not changed, and not in"
        " this repository."
    )


def _guidance(recipe: Recipe) -> float | None:
    """The guidance of the training; None where only the backbone itself knows it."""
    known = REGISTRY.get(recipe.backbone)
    return recipe.guidance_scale if known is None else known.guidance(recipe.guidance_scale)


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[CardChart]:
    if not any("rewards" in row for row in rows):
        return []
    return [CardChart("training.png", TRAINING_CAPTION, training_figure(rows))]


def _measured(run: RunDirectory, recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> _Measured:
    """The evaluation of a run's module, or else those of the training."""
    path = run.path / RUN_EVALUATION
    if is_store(path):
        return _of_store(Store(path))
    best = done_and_best(rows)[1]
    return _Measured(
        held_out_table(rows, best),
        results=_training_results(recipe, rows, best),
        lacking=[
            f"there is no {path}, and so no histogram of D: `asyncdiff histogram {run.path}` makes"
            " it"
        ],
    )


def _of_store(store: Store) -> _Measured:
    summary = summarize(store)
    chosen = distributions([(store.path.name, store)], None)
    return _Measured(
        [our_block(summary, every_column=False)],
        [CardChart("histogram.png", HISTOGRAM_CAPTION, histogram_figure(chosen))],
        _store_results(summary),
    )


def _store_results(summary: Summary) -> list[EvalResult]:
    settings = summary.settings
    of, guidance = str(settings.get("dataset")), settings.get("guidance_scale")
    return [
        MeasuredOn(of, settings.get("split"), row.setting.steps, guidance).result(metric, found)
        for row in summary.results
        if takes_module(row.setting.policy) and row.setting.gamma == 1
        for metric, found in row.metrics.items()
    ]


def _training_results(
    recipe: Recipe, rows: Sequence[Mapping[str, Any]], best: int | None
) -> list[EvalResult]:
    """The last evaluation of the module that is kept: of the best iteration, or else the last."""
    compared = [row for row in rows if "held_out" in row and row["iteration"]]
    kept = [row for row in compared if row["iteration"] == best] or compared
    if not kept:
        return []
    drawn = recipe.num_inference_steps, _guidance(recipe)
    held_out = MeasuredOn(recipe.prompts, "validation", *drawn)
    return [
        held_out.result(metric, Difference(**found))
        for metric, found in kept[-1]["held_out"].items()
        if isinstance(found, Mapping)
    ]
