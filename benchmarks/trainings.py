"""What settings of a recipe bring on the model itself: held-out reward along trainings, by seeds.

    python -m benchmarks.trainings --out DIR [--recipe mini-lifted] [--seeds 3]
        [--option NAME="KEY=VALUE …" …] [KEY=VALUE …]

Each option is the recipe with a few settings of its own, trained with each seed; KEY=VALUE is for
all of them. Told are the held-out composites over the synchronous sampler along the way, and the
denoiser calls until a seed has 90 % of what the first option gains in the mean at its end; a seed
that does not get there counts as all calls. Held-out evaluations are not in the calls. Runs that
are there are read, and those that were killed go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from asyncdiff_cli import render
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.locks import hold
from asyncdiff_cli.engine.rewards import COMPOSITE
from asyncdiff_cli.engine.training.recipe import Recipe, cost
from asyncdiff_cli.engine.training.recipe_files import load_recipe
from asyncdiff_cli.engine.training.run import MODULE, RunDirectory
from benchmarks import options
from benchmarks.learning import SHARE, calls_to
from benchmarks.reports import slug, table_of, write_report
from benchmarks.runs import check_same, finish

ITSELF = "the recipe"
OPTIONS: Mapping[str, Sequence[str]] = {
    ITSELF: (),
    "start at D = 0": ("start=null",),
    "draws that are not alike": ("estimator.correlation=0",),
    "one epoch": ("epochs=1",),
}
ALWAYS = ("evaluation.patience=null", "samples.every=0")
"""What a training needs to be one of these."""


def parse_options(given: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Settings by name of what is typed, behind the recipe itself; all of `OPTIONS` of nothing.

    Raises:
        InputError: for one without a name, or without settings.
    """
    if not given:
        return OPTIONS
    form = '"KEY=VALUE …"'
    found = options.pairs("--option", form, given)
    if bare := [name for name, settings in found.items() if "=" not in settings]:
        raise InputError(f"--option is NAME={form}, not {bare[0]}={found[bare[0]]}")
    return {ITSELF: (), **{name: settings.split() for name, settings in found.items()}}


def recipes(
    recipe: str, named: Mapping[str, Sequence[str]], seeds: int, overrides: Sequence[str]
) -> dict[str, list[Recipe]]:
    """The recipes of each option by seed, all of them checked.

    Raises:
        InputError: as `load_recipe`.
    """
    return {
        name: [
            load_recipe(recipe, [*overrides, *own, *ALWAYS, f"seed={seed}"])
            for seed in range(1, seeds + 1)
        ]
        for name, own in named.items()
    }


def curve(recipe: Recipe, path: Path) -> dict[int, float]:
    """The held-out composite by iteration, along a training that is there then.

    Raises:
        InputError, AsyncDiffError: as `check_same` and `finish`.
    """
    run = RunDirectory(path, "")
    check_same(recipe, path)
    if not (run.tpm / MODULE[-1]).is_file():
        with hold(path):
            finish(recipe, path)
    rows = (row for row in run.rows() if "held_out" in row and row["iteration"])
    return {row["iteration"]: row["held_out"][COMPOSITE]["mean"] for row in rows}


def measured(trained: Mapping[str, Sequence[Recipe]], out: Path) -> Iterator[dict[str, Any]]:
    """A row an option, with what each seed gave.

    Raises:
        InputError: if the first option gains nothing; as `curve`.
    """
    level = None
    for name, own in trained.items():
        curves = [curve(recipe, out / slug(name) / str(recipe.seed)) for recipe in own]
        level = _gained(curves) if level is None else level
        each = cost(own[0]).forward_passes / own[0].iterations
        shares = [[(round(n * each), gain / level) for n, gain in g.items()] for g in curves]
        yield {
            "option": name,
            "iterations": [*curves[0]],
            "gains": [[*gains.values()] for gains in curves],
            "calls": [calls_to(points, SHARE) for points in shares],
            "reached": sum(max(share for _, share in points) >= SHARE for points in shares),
        }


def _gained(curves: Sequence[Mapping[int, float]]) -> float:
    """The mean gain at the end."""
    gain = fmean(gains[max(gains)] for gains in curves)
    if gain <= 0:
        raise InputError("the recipe gains nothing in the mean: train it for more iterations")
    return gain


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table: gains at each evaluation, and calls, each the mean and every seed's own."""
    marks = rows[0]["iterations"]
    lines = [
        ["option", *(f"after {mark}" for mark in marks), f"calls to {SHARE:.0%}", "seeds there"],
        ["---"] * (3 + len(marks)),
    ]
    for row in rows:
        gains = (_seeds(values, "{:+.3f}") for values in zip(*row["gains"], strict=True))
        calls = _seeds(row["calls"], "{:,.0f}")
        lines.append([row["option"], *gains, calls, str(row["reached"])])
    return table_of(lines) + "\n"


def _seeds(values: Sequence[float], form: str) -> str:
    return f"{form.format(fmean(values))} ({', '.join(form.format(v) for v in sorted(values))})"


def main(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE…", help="Settings of all trainings.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the runs and the table go.")] = Path("trainings"),
    recipe: Annotated[str, typer.Option(help="What is trained.")] = "mini-lifted",
    seeds: Annotated[int, typer.Option(min=1, help="1, 2, … of each option.")] = 3,
    option: Annotated[
        list[str] | None, typer.Option(metavar='NAME="KEY=VALUE …"', help="Repeatable.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Train a recipe with other settings and several seeds, and compare what it learns."""
    render.quiet_libraries()
    with options.errors_told():
        trained = recipes(recipe, parse_options(option or ()), seeds, overrides or ())
        rows = list(measured(trained, out))
        write_report(rows, to_markdown(rows), out / "trainings")
    if json:
        render.as_json({"rows": rows})
    else:
        render.line(to_markdown(rows))


if __name__ == "__main__":
    typer.run(main)
