"""Three trainings that differ in their rewards, and what their modules are worth on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.registry import BASELINE
from asyncdiff_cli.engine.locks import hold
from asyncdiff_cli.engine.rewards import GUARD
from asyncdiff_cli.engine.statistics import all_paired
from asyncdiff_cli.engine.training.recipe import Recipe
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.run import MODULE, RunDirectory
from benchmarks.evidence.bench import Bench
from benchmarks.evidence.plan import Plan
from benchmarks.evidence.rows import SYNCHRONOUS, Candidate
from benchmarks.evidence.run import score
from benchmarks.runs import check_same, finish

MIX, GUARDED, JUDGED, UNJUDGED = "mix", "guarded", "judged", "unjudged"
SAID = {
    MIX: "the mix",
    GUARDED: "with the noise guard",
    JUDGED: "with the judge",
    UNJUDGED: "without the judge",
}
PATIENCE = 3
"""Bad signs in a row at which early stopping, at its default, would have ended a training."""


@dataclass(frozen=True)
class Study:
    """Three trainings, and where they are.

    Attributes:
        recipes: of the trainings by name, which differ in their rewards alone.
        plan: on how many prompts, and by what, their modules are measured.
    """

    recipes: Mapping[str, Recipe]
    plan: Plan
    out: Path

    def run(self, name: str) -> Path:
        """The directory of a training."""
        return self.out / "runs" / name

    def module(self, name: str, iteration: int) -> Path:
        """The directory of a training's module after an iteration."""
        return self.out / "modules" / name / f"{iteration:06d}"

    def iterations(self, name: str) -> list[int]:
        """The iterations whose modules are compared."""
        recipe = self.recipes[name]
        every, last = recipe.checkpoint.every, recipe.iterations
        return sorted({*range(every, last + 1, every), last})


def recipes(recipe: str, overrides: Sequence[str], judge: str, guard: float) -> dict[str, Recipe]:
    """The recipes of the three trainings.

    Args:
        judge: a reward that one of them leaves out where the recipe has it, and else has too.
        guard: the weight of the residual noise in the one that has it.

    Raises:
        InputError: as `load_recipe`.
    """
    trained = load_recipe(recipe, overrides)
    judged = bool(trained.rewards.get(judge))
    every = trained.evaluation.every
    shared = (
        *overrides,
        *("evaluation.patience=null", "samples.every=0"),
        *(f"checkpoint.every={every}", "checkpoint.keep=100000"),
    )
    rewards = {
        MIX: [],
        GUARDED: [f"rewards.{GUARD}={guard}"],
        UNJUDGED if judged else JUDGED: [f"rewards.{judge}={0 if judged else 1}"],
    }
    return {name: load_recipe(recipe, [*shared, *own]) for name, own in rewards.items()}


def train(study: Study, name: str) -> None:
    """Train to the end, or go on, and write the module of each checkpoint.

    Raises:
        InputError, AsyncDiffError: as `check_same` and `finish`.
    """
    wanted, path, recipe = study.iterations(name), study.run(name), study.recipes[name]
    check_same(recipe, path)
    if all((study.module(name, n) / MODULE[-1]).is_file() for n in wanted):
        return
    with hold(path):
        trainer = finish(recipe, path)
        for iteration in wanted:
            checkpoint = trainer.run.read(trainer.run.file(iteration))
            trainer.state.module_of(checkpoint).save_pretrained(study.module(name, iteration))


def measure(study: Study, bench: Bench) -> dict[str, Any]:
    """Every module beside synchronous sampling on the held-out prompts, as JSON values."""
    prompts, steps = study.plan.held_out, study.plan.steps[0]
    count, rows = len(prompts.order), study.out / "rows"
    own = Candidate(BASELINE, steps)
    drawn = {SYNCHRONOUS: bench.draw(rows / SYNCHRONOUS, [own], prompts, count)[own]}
    for name in study.recipes:
        modules = {
            n: Candidate(f"learned:{study.module(name, n)}", steps) for n in study.iterations(name)
        }
        found = bench.draw(rows / name, [*modules.values()], prompts, count)
        drawn |= {f"{name} {n}": found[candidate] for n, candidate in modules.items()}
    scores, notes = score(bench, drawn, SYNCHRONOUS, study.plan.weights)
    cells = [(row, metric) for row in scores for metric in scores[row]]
    pairs = all_paired([(scores[row][m], scores[SYNCHRONOUS][m]) for row, m in cells])
    found_metrics: dict[str, dict[str, Any]] = {row: {} for row in scores}
    for (row, metric), paired in zip(cells, pairs, strict=True):
        found_metrics[row][metric] = asdict(paired)
    return {
        "backbone": bench.evaluation.store.settings["backbone"],
        "steps": steps,
        "prompts": count,
        "notes": list(notes),
        "options": bench.evaluation.options,
        "runs": [_run(study, name, found_metrics) for name in study.recipes],
    }


def _run(study: Study, name: str, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A training: what it was for, where it went, and what was and would have been kept."""
    logged = RunDirectory(study.run(name), "").rows()
    points = [{"iteration": n, "metrics": metrics[f"{name} {n}"]} for n in study.iterations(name)]
    return {
        "run": name,
        "rewards": {n: w for n, w in study.recipes[name].rewards.items() if w},
        **early_stop(logged, PATIENCE),
        "points": points,
    }


def early_stop(rows: Sequence[Mapping[str, Any]], patience: int) -> dict[str, int | None]:
    """Which module a training kept, when early stopping would have ended it, and with which.

    Args:
        rows: the metrics of a training that it did not end.
        patience: bad signs in a row. A training warns of each evaluation that is one.
    """
    bad, signs = 0, {row["iteration"] for row in rows if "warning" in row}
    evaluations = [row for row in rows if "best" in row]
    stopped: dict[str, int | None] = {"early_stop": None, "early_kept": None}
    for row in evaluations:
        bad = bad + 1 if row["iteration"] in signs else 0
        if bad == patience:
            stopped = {"early_stop": row["iteration"], "early_kept": row["best"]}
            break
    return {"kept": evaluations[-1]["best"] if evaluations else None, **stopped}
