"""The options that several commands share, and their groups.

Annotations are evaluated here, so that a group of another module can inherit fields.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncdiff_cli.commands import callbacks
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.engine.backbones.registry import (
    GRIDS,
    OFFLOADS,
    QUANTIZATIONS,
    REGISTRY,
    SCHEDULER_CLASSES,
)

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice

TRAINING = "Training"
WHAT = "What to draw"
TIME = "Conditioning time"
SAMPLING = "Sampling"
SEARCH = "Search"
SCORING = "Scoring"
MODEL = "Model and device"
OUT = "Where it goes"

Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=OUT, help="Print one JSON object on stdout."),
]
Seed = Annotated[int, typer.Option(metavar="SEED", help="Draws the prompts and their noise.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        rich_help_panel=WHAT,
        help="Where prompts are downloaded to. (default: the cache)",
    ),
]
RewardPath = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE",
        callback=callbacks.read_reward_paths,
        help="A local checkpoint of a reward or set metric; repeatable.",
    ),
]
Guidance = Annotated[
    float | None, typer.Option(metavar="SCALE", help="Guidance. (default: the backbone's)")
]
Size = Annotated[
    str | None,
    typer.Option(metavar="PIXELS", help="Height and width. (default: the backbone's)"),
]
KeptImages = Annotated[
    int,
    typer.Option(
        "--images", metavar="N", rich_help_panel=OUT, help="Keep the images of the first N prompts."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        rich_help_panel=MODEL,
        help="cpu, cuda or cuda:N. (default: CUDA where there is one)",
    ),
]


@in_panel(MODEL)
def _model(
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=callbacks.complete_backbone,
            help=f"{', '.join(REGISTRY)}, a pipeline directory or a hub repository."
            " (default: mini)",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit of the repository.")
    ] = None,
    model_path: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Load the backbone from this directory, or its transformer from this .safetensors"
            " or .gguf file.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--solver",
            "--scheduler",
            metavar="NAME",
            autocompletion=callbacks.completing(SCHEDULER_CLASSES),
            help=f"{', '.join(SCHEDULER_CLASSES)}. (default: model, its own)",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=callbacks.completing(GRIDS),
            help=f"Where the steps lie: {', '.join(GRIDS)}. (default: model)",
        ),
    ] = None,
    device: Device = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            autocompletion=callbacks.complete_dtype,
            help="fp32, bf16 or fp16. (default: the backbone's on CUDA, fp32 on a CPU)",
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="BITS",
            autocompletion=callbacks.completing(QUANTIZATIONS),
            help=f"Hold the transformer and large text encoders as {', '.join(QUANTIZATIONS)}."
            " (default: none)",
        ),
    ] = None,
    offload: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            autocompletion=callbacks.completing(OFFLOADS),
            help=f"What waits on the CPU for its turn: {', '.join(OFFLOADS)}. (default: none)",
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE[@SCALE]",
            help="A LoRA of a file or repository; repeatable. (default: none)",
        ),
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the transformer's repeated blocks. (default: no)",
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="diffusers' attention backend, such as flash or sage. (default: none given)",
        ),
    ] = None,
) -> Any:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice

    given = {name: value for name, value in locals().items() if name in _MODEL}
    choice = ModelChoice.parse(**{**given, "lora": tuple(lora) if lora else None})
    choice.check()
    return choice


_MODEL = inspect.signature(_model).parameters
Model = Annotated["ModelChoice", _model]


@in_panel(MODEL)
@dataclass(frozen=True)
class Processes:
    """How many processes a command runs in."""

    context: typer.Context
    processes: Annotated[
        int, typer.Option(metavar="N", help="Processes on this machine, one per GPU.")
    ] = 1

    def launch(self, device: str | None) -> None:
        """Leave the command to its processes, if it is to have several, and exit as they do."""
        from asyncdiff_cli.engine.processes import launch, must_launch

        if must_launch(self.processes):
            raise typer.Exit(launch(self.processes, self.context.obj.arguments, device))


def policies(help: str, *names: str) -> Any:
    """An option of policies, separated by commas."""
    check = callbacks.read_policies
    return typer.Option(*names, metavar="POLICY,…", callback=check, rich_help_panel=TIME, help=help)


def file_out(help: str, metavar: str = "FILE") -> Any:
    """An option of a file that is written."""
    return typer.Option(
        metavar=metavar, callback=callbacks.try_file, rich_help_panel=OUT, help=help
    )


def directory_out(help: str) -> Any:
    """An option of a directory that is written into."""
    check = callbacks.try_directory
    return typer.Option(metavar="DIR", callback=check, rich_help_panel=OUT, help=help)


@in_panel(WHAT)
@dataclass(frozen=True)
class PromptSource:
    """Where prompts come from."""

    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            callback=callbacks.read_dataset,
            help="mini, coco2014, t2i-compbench, or a text or JSONL file of prompts."
            " (default: mini's own, else coco2014)",
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            callback=callbacks.read_paths,
            help="A local copy of the set in place of the download.",
        ),
    ] = None
    data_dir: DataDir = None


@in_panel(WHAT)
@dataclass(frozen=True)
class PromptOptions(PromptSource):
    """What an evaluation draws."""

    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Prompts. (default: 2048 of coco2014, 256 of mini's, else all)"
        ),
    ] = None
    seed: Seed = 42
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N", help="Only every N-th prompt, from the I-th on, counted from 0."
        ),
    ] = "0/1"


@in_panel(SAMPLING)
@dataclass(frozen=True)
class SamplingOptions:
    """How the images of an evaluation are drawn."""

    steps: Annotated[
        str | None,
        typer.Option(metavar="K1,K2,…", help="Numbers of steps. (default: the backbone's)"),
    ] = None
    guidance: Guidance = None
    size: Size = None
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Images drawn at once. (default: 8 on a CPU, 32 on CUDA)"),
    ] = None


@in_panel(SCORING)
@dataclass(frozen=True)
class ScoringOptions:
    """What an evaluation measures the images with."""

    rewards: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            callback=callbacks.read_rewards,
            autocompletion=callbacks.complete_reward,
            help="Comma-separated; residual noise is always added. (default: those of the paper, or"
            " mini's)",
        ),
    ] = None
    reward_path: RewardPath = None
    reward_dtype: Annotated[
        str | None, typer.Option(metavar="DTYPE", help="Of the rewards. (default: each its own)")
    ] = None
    offload_rewards: Annotated[
        bool,
        typer.Option("--offload-rewards", help="Keep only the reward that scores on the GPU."),
    ] = False
    set_metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            callback=callbacks.read_set_metrics,
            autocompletion=callbacks.complete_set_metric,
            help="cmmd, fid, fid_judge, spectrum: how far all pictures of a policy are from those"
            " of --reference, comma-separated. (default: none)",
        ),
    ] = None
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            callback=callbacks.read_paths,
            help="Pictures that set metrics compare with, or an evaluation that has compared with"
            " them. (default: for mini, scenes that came with its judge)",
        ),
    ] = None
