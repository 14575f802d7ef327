"""The options that several commands share, and what the shell completes them with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from asyncdiff_cli.engine.backbones.registry import (
    GRIDS,
    OFFLOADS,
    QUANTIZATIONS,
    REGISTRY,
    SCHEDULER_CLASSES,
)
from asyncdiff_cli.engine.checks import check_arguments, check_unicode
from asyncdiff_cli.engine.files import check_directory, check_writable, existing, expanded
from asyncdiff_cli.engine.text import as_typed

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice


@dataclass
class Call:
    """What all commands of a call of `asyncdiff` share."""

    arguments: list[str]
    debug: bool = False


class Command(TyperCommand):
    """A command that reads all its arguments by one set of rules.

    None is empty, but what may be (`--negative ""`); texts are Unicode; and in paths `~` is the
    home directory, also where no shell has put it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with_value = [p for p in self.params if not getattr(p, "is_flag", True)]
        if not ctx.resilient_parsing:  # as the shell completes
            check_arguments(args, {name for option in with_value for name in option.opts})
        rest = super().parse_args(ctx, args)
        ctx.params.update({name: _read(value) for name, value in ctx.params.items()})
        return rest


def _read(value: Any) -> Any:
    """An argument's value with its paths expanded, and its texts checked."""
    if isinstance(value, list | tuple):
        return type(value)(map(_read, value))
    if isinstance(value, Path):
        return expanded(value)
    if isinstance(value, str):
        value = as_typed(value)
        check_unicode("an argument", value)
    return value


def complete_backbone(incomplete: str) -> list[tuple[str, str]]:
    """Backbones known by name."""
    return [(name, e.licence) for name, e in REGISTRY.items() if name.startswith(incomplete)]


def _completing(names: Iterable[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


complete_dtype = _completing(("fp32", "bf16", "fp16"))


def complete_reward(incomplete: str) -> list[str]:
    """Rewards known by name, also after those that are already named."""
    from asyncdiff_cli.engine.rewards import AVAILABLE

    return _one_more(incomplete, AVAILABLE)


def complete_set_metric(incomplete: str) -> list[str]:
    """Set metrics, also after those that are already named."""
    from asyncdiff_cli.engine.evaluation.set_metrics import NAMES

    return _one_more(incomplete, NAMES)


def _one_more(incomplete: str, names: Iterable[str]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


def complete_recipe(incomplete: str) -> list[str]:
    """Recipes that come with the package."""
    from asyncdiff_cli.engine.training.recipe_files import names

    return [name for name in names() if name.startswith(incomplete)]


Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N. (default: CUDA where there is one)"),
]


def _model(
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_backbone,
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
            autocompletion=_completing(SCHEDULER_CLASSES),
            help=f"{', '.join(SCHEDULER_CLASSES)}. (default: model, its own)",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=_completing(GRIDS),
            help=f"Where the steps lie: {', '.join(GRIDS)}. (default: model)",
        ),
    ] = None,
    device: Device = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            autocompletion=complete_dtype,
            help="fp32, bf16 or fp16. (default: the backbone's on CUDA, fp32 on a CPU)",
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="BITS",
            autocompletion=_completing(QUANTIZATIONS),
            help=f"Hold the transformer and large text encoders as {', '.join(QUANTIZATIONS)}."
            " (default: none)",
        ),
    ] = None,
    offload: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            autocompletion=_completing(OFFLOADS),
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
) -> ModelChoice:
    from asyncdiff_cli.engine.backbones.choice import ModelChoice

    given = {name: value for name, value in locals().items() if name in _MODEL}
    choice = ModelChoice.parse(**{**given, "lora": tuple(lora) if lora else None})
    choice.check()
    return choice


_MODEL = inspect.signature(_model).parameters
_HINTS = get_type_hints(_model, localns={"ModelChoice": object}, include_extras=True)


def with_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a model; they reach it as its argument `model`."""
    hints = get_type_hints(command, localns={"ModelChoice": object}, include_extras=True)
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "model"]
    parameters = [p.replace(annotation=hints[p.name]) for p in own]
    parameters += [p.replace(annotation=_HINTS[p.name]) for p in _MODEL.values()]

    def wrapper(**values: Any) -> None:
        command(_model(**{name: values.pop(name) for name in _MODEL}), **values)

    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def read_paths(value: Any) -> Any:
    """Refuse a path that is read and not there, before what reads it is imported."""
    for path in value if isinstance(value, list | tuple) else [value]:
        if path is not None:
            existing(path)
    return value


def try_file(context: typer.Context, path: Path | None) -> Path | None:
    """Refuse a file that cannot be written, before there is something to write."""
    if path is not None and not context.resilient_parsing:  # as where the shell completes
        check_writable(expanded(path))
    return path


def try_directory(context: typer.Context, path: Path | None) -> Path | None:
    """Refuse a directory as `try_file` refuses a file."""
    if path is not None and not context.resilient_parsing:
        check_directory(expanded(path))
    return path


def read_policies(text: str | None) -> str | None:
    """Refuse a policy that is not known before what draws with it is imported."""
    if text:
        from asyncdiff_cli.engine.policies.specs import find_policy

        for part in text.split(","):
            find_policy(part)
    return text


def read_dataset(text: str | None) -> str | None:
    """Refuse a set of prompts that is not known before what draws it is imported."""
    if text:
        from asyncdiff_cli.engine.prompts.load import check_source

        check_source(text)
    return text


def read_rewards(text: str | None) -> str | None:
    """Refuse a reward that is not known before any is imported."""
    if text:
        from asyncdiff_cli.engine.rewards import parse_rewards

        parse_rewards(text)
    return text


def read_set_metrics(text: str | None) -> str | None:
    """Refuse a set metric that is not known, or not installed, before anything is loaded."""
    if text:
        from asyncdiff_cli.engine.evaluation.set_metrics import check_set_metrics

        check_set_metrics([name.strip() for name in text.split(",")])
    return text


def read_reward_paths(items: list[str] | None) -> list[str] | None:
    """Refuse a checkpoint that is not there before what reads it is imported."""
    from asyncdiff_cli.engine import rewards
    from asyncdiff_cli.engine.evaluation import set_metrics

    rewards.parse_reward_paths(items or [], (*rewards.ENTRIES, *set_metrics.NAMES))
    return items


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="SET",
        callback=read_dataset,
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
        "--prompts",
        metavar="PATH",
        callback=read_paths,
        help="A local copy of the set in place of the download.",
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
    str | None,
    typer.Option(metavar="PIXELS", help="Height and width. (default: the backbone's)"),
]
Rewards = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        callback=read_rewards,
        autocompletion=complete_reward,
        help="Comma-separated; residual noise is always added. (default: those of the paper, or"
        " mini's)",
    ),
]
RewardPath = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE",
        callback=read_reward_paths,
        help="A local checkpoint of a reward or set metric; repeatable.",
    ),
]
SetMetrics = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        callback=read_set_metrics,
        autocompletion=complete_set_metric,
        help="cmmd, fid, fid_judge, spectrum: how far all pictures of a policy are from those of"
        " --reference, comma-separated. (default: none)",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        callback=read_paths,
        help="Pictures that set metrics compare with, or an evaluation that has compared with them."
        " (default: for mini, scenes that came with its judge)",
    ),
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
        callback=read_policies,
        help="baseline, learned[:DIR], lifted[:DIR], fixed:D, schedule:D1/D2/…, schedule:FILE.json,"
        " spectral[:WEIGHT], detail-daemon[:A], velocity-scale[:ω], time-shift[:WINDOW],"
        " combined:D/ω; each with @γ if not 1. (default: baseline, and the modules that the"
        " backbone ships)",
    ),
]
StoreDirectory = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        callback=try_directory,
        help="The store. What is there is kept. (default: in evals/)",
    ),
]
