"""`asyncdiff score`: score pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncdiff_cli import render
from asyncdiff_cli.commands import callbacks, options
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.engine.collector import collector_at_rest
from asyncdiff_cli.engine.rewards import AVAILABLE, DEFAULT, parse_reward_paths, parse_rewards

if TYPE_CHECKING:
    from asyncdiff_cli.engine.evaluation.scoring import Scores


@in_panel(options.SCORING)
def score(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            readable=False,
            callback=callbacks.read_paths,
            help="Pictures, and directories of them.",
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What all of them were to show.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=callbacks.read_prompts,
            help='Prompts, one a line, in the order of the pictures; or {"image": …, "prompt": …},'
            " one a line; or hf:USER/NAME[:COLUMN]. (default: the prompt that a picture of"
            " `asyncdiff sample` carries)",
        ),
    ] = None,
    rewards: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            callback=callbacks.read_rewards,
            autocompletion=callbacks.complete_reward,
            help=f"{', '.join(AVAILABLE)}. (default: {', '.join(DEFAULT)}, which need no download)",
        ),
    ] = None,
    reward_path: options.RewardPath = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Pictures scored at once. (default: 16)")
    ] = None,
    device: options.Device = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            rich_help_panel=options.MODEL,
            callback=callbacks.read_dtype,
            autocompletion=callbacks.complete_dtype,
            help="fp32, bf16 or fp16. (default: the reward's own, which is fp32)",
        ),
    ] = None,
    csv: Annotated[Path | None, options.file_out("Write all scores here.")] = None,
    json: options.Json = False,
) -> None:
    """Score pictures, each for its prompt, and print the mean and its standard error.

    A picture that cannot be scored is named, skipped and counted; the exit code is then 1.

    asyncdiff score outputs --rewards mini_clip,noise --csv scores.csv
    """
    from asyncdiff_cli.engine.checks import check_count
    from asyncdiff_cli.engine.evaluation.scoring import find_pairs, score_files, write_csv
    from asyncdiff_cli.engine.files import kept_apart

    check_count("--batch-size", batch_size)
    find_pairs(paths, prompt, prompts)
    names = parse_rewards(rewards)
    files = parse_reward_paths(reward_path or [], names)
    start = time.perf_counter()
    with collector_at_rest():
        render.quiet_libraries()
    with render.count("pictures") as count:
        scores = score_files(paths, names, prompt, prompts, files, device, dtype, batch_size, count)
    for path, reason in scores.skipped.items():
        render.warning(f"skipped {path}: {reason}")
    if csv is not None and (warning := kept_apart(csv, write_csv(scores, csv))):
        render.warning(warning)
    if json:
        render.as_json({**scores.report(), "seconds": round(time.perf_counter() - start, 3)})
    elif scores.pictures:
        _tables(scores)
    if scores.skipped:
        total = len(scores.pictures) + len(scores.skipped)
        render.error(f"{len(scores.skipped)} of {total} pictures could not be scored")
        raise typer.Exit(1)


def _tables(scores: Scores) -> None:
    """A row per picture, and below them the means."""
    rows = [
        [str(picture.path), *(f"{column[index]:.4f}" for column in scores.values.values())]
        for index, picture in enumerate(scores.pictures)
    ]
    summary = scores.summary().values()
    errors = (row["standard_error"] for row in summary)
    rows.append([f"mean of {len(rows)}", *(f"{row['mean']:.4f}" for row in summary)])
    rows.append(["standard error", *("-" if e is None else f"{e:.4f}" for e in errors)])
    render.table(["picture", *scores.values], rows)
