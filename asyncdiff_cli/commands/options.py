"""The options that several commands share, and their groups.

Annotations are evaluated here, so that a group of another module can inherit fields.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from asyncdiff_cli.commands import callbacks
from asyncdiff_cli.commands.groups import in_panel
from asyncdiff_cli.engine.backbones.choice import ModelChoice, Option
from asyncdiff_cli.engine.backbones.compatibility import check_asked

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
LocalPrompts = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        callback=callbacks.read_paths,
        rich_help_panel=WHAT,
        help="A local copy of the set in place of the download.",
    ),
]
Layout = Annotated[
    str,
    typer.Option(
        metavar="BENCHMARK",
        callback=callbacks.read_layout,
        autocompletion=callbacks.complete_layout,
        rich_help_panel=WHAT,
        help="geneval, geneval2, dpg, t2i-compbench or hpsv2.",
    ),
]
Exported = Annotated[
    Path, typer.Argument(metavar="STORE", callback=callbacks.read_paths, help="A store of eval.")
]
Parameters = Annotated[
    bool,
    typer.Option(
        "--parameters/--no-parameters",
        rich_help_panel=OUT,
        help="Say in each PNG, in the words of Stable Diffusion web UI, what drew it.",
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
Gamma = Annotated[
    float | None,
    typer.Option(metavar="γ", help="What deviations are multiplied by. (default: 1)"),
]
Steps = Annotated[int | None, typer.Option(metavar="K", help="(default: the backbone's)")]
Guidance = Annotated[
    float | None, typer.Option(metavar="SCALE", help="Guidance. (default: the backbone's)")
]
Size = Annotated[
    str | None,
    typer.Option(metavar="PIXELS", help="Height and width. (default: the backbone's)"),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        callback=callbacks.read_device,
        rich_help_panel=MODEL,
        help=ModelChoice.options()["device"].help,
    ),
]


def _model_option(name: str, option: Option) -> inspect.Parameter:
    """The option of a setting of a model, as its field in `ModelChoice` has it."""
    kind = ModelChoice.model_fields[name].annotation
    complete = {"backbone": callbacks.complete_backbone, "dtype": callbacks.complete_dtype}
    listed = callbacks.completing(option.known) if option.known else None
    said = typer.Option(
        *option.flags,
        metavar=option.metavar or None,
        autocompletion=complete.get(name, listed),
        help=option.help,
    )
    annotation: Any = Annotated[_TYPED.get(kind, kind), said]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


_TYPED: dict[Any, Any] = {bool: bool | None, tuple[str, ...]: list[str] | None}
"""What a setting is on the command line, where that is another type: None is not given."""


def _model(default: str) -> Callable[..., ModelChoice]:
    """The group of a model's settings, for a command whose `--backbone` is `default`."""

    @in_panel(MODEL)
    def make(**given: Any) -> ModelChoice:
        choice = ModelChoice.parse(**{**given, "lora": tuple(given["lora"] or ()) or None})
        check_asked(choice)
        return choice

    settings = ModelChoice.options()
    backbone = settings["backbone"]
    settings["backbone"] = replace(backbone, help=f"{backbone.help} (default: {default})")
    make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_model_option(name, option) for name, option in settings.items()]
    )
    return make


Model = Annotated[ModelChoice, _model("mini")]
ModelOfRecipe = Annotated[ModelChoice, _model("the recipe's")]
ModelOfModule = Annotated[ModelChoice, _model("mini, or a distilled module's own")]
ModelOrNone = Annotated[ModelChoice, _model("none")]
"""Which model, by what a command takes where no `--backbone` is given."""


@in_panel(MODEL)
@dataclass(frozen=True)
class Processes:
    """How many processes a command runs in."""

    context: typer.Context
    processes: Annotated[
        int, typer.Option(metavar="N", help="Processes on this machine, one per GPU.")
    ] = 1

    def check(self) -> None:
        """Refuse a number that there cannot be."""
        from asyncdiff_cli.engine.launching import must_launch

        must_launch(self.processes)

    def launch(self, device: str | None) -> None:
        """Leave the command to its processes, if it is to have several, and exit as they do."""
        from asyncdiff_cli.engine.launching import launch, must_launch

        if must_launch(self.processes):
            raise typer.Exit(launch(self.processes, self.context.obj.arguments, device))


def policies(help: str, *names: str) -> Any:
    """An option of policies, separated by commas."""
    check = callbacks.read_policies
    return typer.Option(*names, metavar="POLICY,…", callback=check, rich_help_panel=TIME, help=help)


def rewards_option(help: str) -> Any:
    """An option of rewards, separated by commas."""
    return typer.Option(
        metavar="NAMES",
        callback=callbacks.read_rewards,
        autocompletion=callbacks.complete_reward,
        rich_help_panel=SCORING,
        help=help,
    )


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
            help="mini, coco2014, t2i-compbench, geneval, geneval2, dpg, hpsv2, a text or JSONL"
            " file of prompts, or hf:USER/NAME[:COLUMN] of the hub. (default: mini's own, else"
            " coco2014)",
        ),
    ] = None
    prompts: LocalPrompts = None
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
    num_images: Annotated[
        int, typer.Option(metavar="N", help="Images of each prompt, each of a noise of its own.")
    ] = 1
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


def _images(default: str = "") -> Any:
    """An option of how many images a store keeps; `default` says which, where it is none."""
    says = f"Keep the images of the first N prompts.{default}"
    return typer.Option("--images", metavar="N", help=says)


@in_panel(OUT)
@dataclass(frozen=True)
class KeptImages:
    """Which images of an evaluation are written, and what they say."""

    kept_images: Annotated[
        int | None, _images(" (default: 16; all of geneval, geneval2, dpg and hpsv2)")
    ] = None
    parameters: Parameters = True


@in_panel(OUT)
@dataclass(frozen=True)
class SweptImages(KeptImages):
    """Which images of a sweep are written, and what they say."""

    kept_images: Annotated[int, _images()] = 6


@in_panel(SCORING)
@dataclass(frozen=True)
class ScoringOptions:
    """What an evaluation measures the images with."""

    rewards: Annotated[
        str | None,
        rewards_option(
            "Comma-separated; residual noise is always added. (default: those of the paper, or"
            " mini's)"
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
