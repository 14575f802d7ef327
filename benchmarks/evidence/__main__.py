"""The table of the evidence: every cheap rival at equal denoiser calls, tuned on other prompts.

    python -m benchmarks.evidence --out DIR [--steps 5,8,10,15]
        [--module NAME=PLACE …] [--solver NAME=SOLVER …]
    python -m benchmarks.evidence --dry-run

Of each K: synchronous Euler; DPM++(2M), UniPC and Heun, each without and with its best deviation,
and the first two with a velocity scale beside one; the grid with its best shift; constants, ramps,
and schedules that are derived, calibrated and distilled; the modules that choose by the picture;
the rivals of others; and synchronous Euler with more steps until it matches the best of these. What
has numbers is tuned on training prompts by successive halving, by the rewards that the recipe
trains. Everything is measured on validation prompts that no training looked at, and beside the
trained rewards by those that are not trained on.

Each row draws into a store of its own as `asyncdiff eval` does, so that what was killed goes on.
DIR then has evidence.json, evidence.md and evidence.png.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.engine.backbones.registry import provisional_entry
from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.evaluation.start import open_evaluation
from asyncdiff_cli.engine.fields import parse_numbers
from asyncdiff_cli.engine.figures.style import save_figure
from asyncdiff_cli.engine.locks import hold
from asyncdiff_cli.engine.rewards import parse_names, parse_reward_paths, parse_rewards
from asyncdiff_cli.engine.schedules.search import Search
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from benchmarks import options
from benchmarks.evidence.bench import Bench
from benchmarks.evidence.figure import evidence_figure
from benchmarks.evidence.markdown import to_markdown
from benchmarks.evidence.plan import Plan
from benchmarks.evidence.rows import EULER, SOLVERS, Module
from benchmarks.evidence.run import Runner, describe
from benchmarks.reports import write_report

DISTILLED = ("lifted", "learned")
"""The modules of a backbone that a schedule is distilled from, the first that there is."""
KNOWN = ("mini_judge", "fid_judge")
"""What a path may be given for beside the recipe's rewards and those that are asked for."""


def parse_plan(
    recipe: str,
    steps: str,
    module: Sequence[str],
    solver: Sequence[str],
    distilled: str | None,
    rewards: str | None,
    set_metrics: str | None,
    reward_path: Sequence[str],
    **others: Any,
) -> Plan:
    """The plan of what is typed.

    Args:
        module: NAME=PLACE each, beside those that the backbone ships.
        solver: NAME=SOLVER each, of modules that are not for Euler.
        others: fields of `Plan` as they are.

    Raises:
        InputError: for what is not of its form, or not known.
    """
    settings = load_recipe(recipe)
    entry = provisional_entry(settings.model().name)
    own = {name: name for name in entry.modules}
    places = {**own, **options.pairs("--module", "PLACE", module)}
    solvers = options.pairs("--solver", "SOLVER", solver)
    for name, given in solvers.items():
        check_choice("module", name, places)
        check_choice("solver", given, (EULER, *SOLVERS))
    modules = {name: Module(place, solvers.get(name, EULER)) for name, place in places.items()}
    names = parse_rewards(rewards) if rewards else None
    sets = None if set_metrics is None else parse_names(set_metrics) if set_metrics else ()
    known = [*settings.rewards, *(names or ()), *(sets or ()), *KNOWN]
    return Plan(
        settings,
        parse_numbers("--steps", steps, int),
        modules=modules,
        distilled=distilled or next((name for name in DISTILLED if name in places), None),
        rewards=names,
        set_metrics=sets,
        reward_paths=parse_reward_paths(reward_path, known),
        **others,
    )


def gather(plan: Plan, out: Path) -> dict[str, Any]:
    """Carry a plan out, and write what is known after each K; all of it as JSON values.

    Raises:
        InputError, AsyncDiffError: as `open_evaluation` and `Runner.run`.
    """
    with hold(out):
        with render.status("Loading the models"):
            evaluation = open_evaluation(plan.comparison(), out / "model", None, render.warning)
        pictures = sum(plan.cost(steps)["pictures"] for steps in plan.steps)
        with render.images(pictures) as advance:
            bench, reports = Bench(evaluation, advance), []
            for own in Runner(plan, bench, out, render.note).run():
                reports.append(own)
                report = {**describe(plan, bench), "steps": reports}
                write(report, out)
        if evaluation.canvas.text is not None:
            evaluation.canvas.text.remove()
    return report


def write(report: Mapping[str, Any], out: Path) -> list[Path]:
    """Write a report with its table and its figure; the files."""
    figure = out / "evidence.png"
    save_figure(evidence_figure(report), figure)
    return [*write_report(report, to_markdown(report), out / "evidence"), figure]


def main(
    out: Annotated[Path, typer.Option(help="Where the rows and the tables go.")] = Path("evidence"),
    recipe: Annotated[str, typer.Option(help="Whose model, prompts and rewards.")] = "mini",
    steps: Annotated[str, typer.Option(help="Numbers of evaluations K.")] = "5,8,10,15",
    limit: Annotated[int, typer.Option(min=2, help="Held-out prompts to measure on.")] = 512,
    tuning: Annotated[int, typer.Option(min=2, help="Training prompts to tune on.")] = 128,
    searched: Annotated[
        int, typer.Option(min=0, help="Training prompts to search schedules on; 0 for none.")
    ] = 16,
    module: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PLACE, a directory or policy; {K} in it is K. Repeatable."),
    ] = None,
    solver: Annotated[
        list[str] | None, typer.Option(help="NAME=SOLVER of a module not for Euler; repeatable.")
    ] = None,
    distilled: Annotated[
        str | None, typer.Option(help="The module to distill; default lifted, else learned.")
    ] = None,
    rewards: Annotated[
        str | None, typer.Option(help="Beside the recipe's; default the backbone's usual ones.")
    ] = None,
    set_metrics: options.SetMetrics = None,
    reference: options.Reference = None,
    reward_path: Annotated[list[str] | None, typer.Option(help="As `asyncdiff eval`.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="ROW", help="Rows beside synchronous; repeatable.")
    ] = None,
    batch_size: options.BatchSize = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell the cost, no more.")] = False,
    json: options.Json = False,
) -> None:
    """Compare every cheap rival at equal denoiser calls, tuned on other prompts."""
    render.quiet_libraries()
    with options.errors_told():
        plan = parse_plan(
            recipe, steps, module or (), solver or (), distilled, rewards, set_metrics,
            reward_path or (), limit=limit, tuning=tuning, searched=searched,
            search=Search() if searched else None, reference=reference,
            batch_size=batch_size, only=only or None,
        )  # fmt: skip
        if dry_run:
            _show_cost([plan.cost(count) for count in plan.steps], json)
            return
        report = gather(plan, out)
    if json:
        render.as_json(report)
    else:
        render.line(to_markdown(report))


def _show_cost(cost: Sequence[Mapping[str, int]], json: bool) -> None:
    if json:
        render.as_json({"cost": [*cost]})
        return
    columns = [*cost[0]]
    total = ["all", *(f"{sum(row[name] for row in cost):,}" for name in columns[1:])]
    lines = [[f"{row[name]:,}" for name in columns] for row in cost]
    render.table([name.replace("_", " ") for name in columns], [*lines, total])


if __name__ == "__main__":
    typer.run(main)
