"""What trainings do to metrics that they do not see, with three mixes of rewards.

    python -m benchmarks.overoptimisation --out DIR [--recipe mini] [iterations=240 …]

Three trainings of one recipe and seed differ in their rewards alone: the recipe's own; these with
the residual-noise guard as one more; and with the judge, or without it where the recipe has it.
They go on to their last iteration, whatever their held-out reward says. The module of each
checkpoint draws validation prompts that no training looks at, and is compared with synchronous
sampling by every metric, of which each mix leaves some out. Told is also which module early
stopping would have kept.

DIR/runs has the trainings, ordinary runs that `asyncdiff train --resume` takes too; each module's
pictures are rows of a store. What was killed goes on. DIR then has overoptimisation.json, .md and
.png.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.engine.evaluation.set_metrics import SHIPPED
from asyncdiff_cli.engine.evaluation.start import open_evaluation
from asyncdiff_cli.engine.figures.style import save_figure
from asyncdiff_cli.engine.locks import hold
from asyncdiff_cli.engine.rewards import parse_names, parse_reward_paths
from benchmarks import options
from benchmarks.evidence.bench import Bench
from benchmarks.evidence.plan import Plan
from benchmarks.overoptimisation.figure import front_figure
from benchmarks.overoptimisation.markdown import to_markdown
from benchmarks.overoptimisation.study import MIX, Study, measure, recipes, train
from benchmarks.reports import write_report


def write(report: Mapping[str, Any], out: Path) -> None:
    """Write a report with its tables and its figure."""
    write_report(report, to_markdown(report), out / "overoptimisation")
    save_figure(front_figure(report), out / "overoptimisation.png")


def main(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE…", help="Settings of the recipe.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where all of it goes.")] = Path("overoptimisation"),
    recipe: Annotated[str, typer.Option(help="What is trained.")] = "mini",
    judge: Annotated[
        str,
        typer.Option(metavar="NAME", help="Had by one training, or left out if the recipe has it."),
    ] = "mini_judge",
    guard: Annotated[float, typer.Option(min=0, help="The weight of the noise guard.")] = 0.5,
    limit: Annotated[int, typer.Option(min=2, help="Held-out prompts to measure on.")] = 256,
    set_metrics: options.SetMetrics = None,
    reference: options.Reference = None,
    reward_path: Annotated[
        list[str] | None, typer.Option(help="Of set metrics; of rewards it is a setting.")
    ] = None,
    batch_size: options.BatchSize = None,
    json: options.Json = False,
) -> None:
    """Train with three mixes of rewards, and compare what each does to all metrics on the way."""
    render.quiet_libraries()
    with options.errors_told():
        own = recipes(recipe, overrides or (), judge, guard)
        sets = None if set_metrics is None else parse_names(set_metrics) if set_metrics else ()
        paths = parse_reward_paths(reward_path or (), [*(sets or SHIPPED)])
        plan = Plan(
            own[MIX],
            (own[MIX].num_inference_steps,),
            limit=limit,
            set_metrics=sets,
            reference=reference,
            reward_paths=paths,
            batch_size=batch_size,
        )
        report = gather(Study(own, plan, out))
    if json:
        render.as_json(report)
    else:
        render.line(to_markdown(report))


def gather(study: Study) -> dict[str, Any]:
    """Train, measure and write; all of it as JSON values.

    Raises:
        InputError, AsyncDiffError: as `train`, `open_evaluation` and `Bench.draw`.
    """
    for name in study.recipes:
        train(study, name)
    with hold(study.out):
        evaluation = open_evaluation(
            study.plan.comparison(), study.out / "model", None, render.warning
        )
        modules = sum(len(study.iterations(name)) for name in study.recipes)
        with render.images((1 + modules) * study.plan.limit) as advance:
            report = measure(study, Bench(evaluation, advance))
    write(report, study.out)
    return report


if __name__ == "__main__":
    typer.run(main)
