"""The options that several commands share, and what the shell completes them with."""

from pathlib import Path
from typing import Annotated

import typer

from asyncdiff_cli.engine.registry import REGISTRY, SCHEDULER_CLASSES


def complete_backbone(incomplete: str) -> list[tuple[str, str]]:
    """Backbones known by name."""
    return [(name, e.licence) for name, e in REGISTRY.items() if name.startswith(incomplete)]


def complete_scheduler(incomplete: str) -> list[str]:
    """Schedulers known by name."""
    return [name for name in SCHEDULER_CLASSES if name.startswith(incomplete)]


def complete_dtype(incomplete: str) -> list[str]:
    """Dtypes by their short names."""
    return [name for name in ("fp32", "bf16", "fp16") if name.startswith(incomplete)]


def complete_reward(incomplete: str) -> list[str]:
    """Rewards known by name, also after those that are already named."""
    from asyncdiff_cli.engine.rewards import NAMES

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in NAMES if name.startswith(last)]


def complete_recipe(incomplete: str) -> list[str]:
    """Recipes that come with the package."""
    from asyncdiff_cli.engine.recipes import names

    return [name for name in names() if name.startswith(incomplete)]


BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        autocompletion=complete_backbone,
        help=f"{', '.join(REGISTRY)}, a pipeline directory or a hub repository. (default: mini)",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(metavar="REV", help="Branch, tag or commit of the repository."),
]
ModelPath = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Load the backbone from this directory."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=complete_scheduler,
        help=f"{', '.join(SCHEDULER_CLASSES)}. (default: the model's own)",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N. (default: CUDA where there is one)"),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="DTYPE",
        autocompletion=complete_dtype,
        help="fp32, bf16 or fp16. (default: fp16 on CUDA, else fp32)",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="SET",
        help="mini, coco2014, t2i-compbench, or a text or JSONL file of prompts."
        " (default: mini's own, else coco2014)",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where prompts are downloaded to. (default: the cache)"),
]
PromptsCopy = Annotated[
    Path | None,
    typer.Option(
        "--prompts", metavar="PATH", help="A local copy of the set in place of the download."
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Prompts. (default: 2048 of coco2014, 256 of mini's, else all)"),
]
Seed = Annotated[int, typer.Option(metavar="SEED", help="Draws the prompts and their noise.")]
StepCounts = Annotated[
    str | None,
    typer.Option(metavar="K1,K2,…", help="Numbers of steps. (default: the backbone's)"),
]
Guidance = Annotated[
    float | None, typer.Option(metavar="SCALE", help="Guidance. (default: the backbone's)")
]
Size = Annotated[
    int | None,
    typer.Option(metavar="PIXELS", help="Height and width. (default: the backbone's)"),
]
Rewards = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        autocompletion=complete_reward,
        help="Comma-separated; residual noise is always added. (default: those of the paper, or"
        " mini's)",
    ),
]
RewardPath = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE", help="A local checkpoint of a reward; repeatable."),
]
RewardDtype = Annotated[
    str | None, typer.Option(metavar="DTYPE", help="Of the rewards. (default: each its own)")
]
OffloadRewards = Annotated[
    bool,
    typer.Option("--offload-rewards", help="Keep only the reward that scores on the GPU."),
]
BatchSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Images drawn at once. (default: 8 on a CPU, 32 on CUDA)"),
]
KeptImages = Annotated[
    int,
    typer.Option("--images", metavar="N", help="Keep the images of the first N prompts."),
]
Shard = Annotated[
    str,
    typer.Option(metavar="I/N", help="Only every N-th prompt, from the I-th on, counted from 0."),
]
Processes = Annotated[
    int, typer.Option(metavar="N", help="Processes on this machine, one per GPU.")
]
Policies = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY,…",
        help="baseline, learned[:DIR], lifted[:DIR], fixed:D, schedule:D1/D2/…, detail-daemon[:A],"
        " velocity-scale[:ω], time-shift[:WINDOW], combined:D/ω; each with @γ if not 1."
        " (default: baseline, and the modules that the backbone ships)",
    ),
]
StoreDirectory = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="The store. What is there is kept. (default: in evals/)"
    ),
]
