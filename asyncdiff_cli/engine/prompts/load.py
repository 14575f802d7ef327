"""The prompts that are trained and validated on: named sets, a file of one's own, or a data set."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.checks import check_choice, unknown
from asyncdiff_cli.engine.downloads import OnProgress, data_home
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.prompts.benchmarks import (
    BENCHMARKS,
    BenchmarkPrompt,
    benchmark_set,
    load_benchmark,
)
from asyncdiff_cli.engine.prompts.coco import COCO_FILES, captions_of, fetch_coco, read_coco
from asyncdiff_cli.engine.prompts.compbench import fetch_compbench, read_compbench
from asyncdiff_cli.engine.prompts.hub_set import HubSet, is_hub_set, pinned_source
from asyncdiff_cli.engine.prompts.lines import read_prompts
from asyncdiff_cli.engine.prompts.mini import mini_captions
from asyncdiff_cli.engine.prompts.prompt_set import ALL, PromptSet
from asyncdiff_cli.engine.prompts.split import FILE_HELD_OUT, SPLITS, is_held_out

DOWNLOADED = (
    "coco2014",
    "t2i-compbench",
    *(name for name, files in BENCHMARKS.items() if files.url),
)
SOURCES = ("mini", "coco2014", "t2i-compbench", *BENCHMARKS)
DATASETS = dict.fromkeys(REGISTRY, "coco2014") | {"mini": "mini"}
"""What a backbone draws unless asked otherwise."""
EVALUATED = {"mini": 256, "coco2014": 2048}
"""How many validation prompts an evaluation draws, unless asked otherwise; else all."""


def is_source(source: str) -> bool:
    """Whether a set of prompts is one of `SOURCES`, a data set, or a file that is there."""
    return source in SOURCES or is_hub_set(source) or expanded(source).is_file()


def check_source(source: str) -> None:
    """A set of prompts is a source, and a data set's name and library are in order.

    Raises:
        InputError: for another one.
    """
    if not is_source(source):
        raise InputError(f"{unknown('prompt source', source, SOURCES)}, and there is no such file")
    if is_hub_set(source):
        HubSet.parse(source).check()


def default_source(backbone: str) -> str:
    """The set of prompts of a backbone.

    Raises:
        InputError: for one without a name, of which it is not known.
    """
    if backbone not in DATASETS:
        raise InputError(
            "what to draw: give --dataset coco2014, t2i-compbench, FILE or hf:USER/NAME[:COLUMN]"
        )
    return DATASETS[backbone]


def load_prompts(
    source: str,
    split: str,
    data_dir: Path | None = None,
    path: Path | None = None,
    on_progress: OnProgress | None = None,
) -> PromptSet:
    """Read one split of a set of prompts.

    The splits of mini and of a file are disjoint; the others are as they were published.

    Args:
        source: one of SOURCES, or a file or data set as `asyncdiff sample --prompt-file` takes, of
            which only the prompts are read.
        split: "train" or "validation".
        data_dir: where downloads are kept, as of `data_home`.
        path: a copy in place of the download. For coco2014 the file of captions, or the directory
            that holds those of both splits; for t2i-compbench the directory of its lists; for the
            others what `BENCHMARKS` says.
        on_progress: told about the download of coco2014, as in `download`.

    Raises:
        InputError: for an unknown source or split, a file that is not what it should be, or a
            split that is empty.
        AsyncDiffError: if a download fails, or is not what it should be.
    """
    check_choice("split", split, SPLITS)
    source = pinned_source(source)
    directory = data_home(data_dir) / source
    path = expanded(path) if path else None
    if source == "coco2014":
        texts = read_coco(path, split) if path else fetch_coco(directory, split, on_progress)
    elif source == "t2i-compbench":
        if path is None:
            fetch_compbench(directory, split)
        return read_compbench(path or directory, split)
    elif source in BENCHMARKS:
        if split != "validation":
            raise InputError(f"{source} is a benchmark: nothing is trained on it")
        return benchmark_set(source, load_benchmark(source, directory, path))
    elif path is not None:
        raise InputError(
            f"{source!r} takes no local copy, as {', '.join(SOURCES[1:])} do: leave out {path}"
        )
    elif source == "mini":
        captions = mini_captions(split)
        return PromptSet(source, split, tuple(captions), tuple(captions.values()))
    else:
        texts = _read_file(source, split, data_dir)
    return PromptSet(source, split, tuple(texts))


def load_evaluation_prompts(
    source: str,
    data_dir: Path | None = None,
    path: Path | None = None,
    on_progress: OnProgress | None = None,
) -> PromptSet:
    """What is evaluated on: the validation split of a named set, or every prompt of a file or of a
    data set.

    A file is one of prompts as `source`, or as `path` one in COCO's form of another name than
    COCO's own.

    Args, Raises: as `load_prompts`.
    """
    own = None if path is None else expanded(path)
    if source == "coco2014" and own and own.is_file() and own.name not in COCO_FILES.values():
        return PromptSet(source, ALL, tuple(captions_of(own)))
    if source in SOURCES or path is not None or not is_source(source):
        return load_prompts(source, "validation", data_dir, path, on_progress)
    source = pinned_source(source)
    return PromptSet(source, ALL, tuple(_distinct_prompts(source, data_dir)))


def _distinct_prompts(source: str, data_dir: Path | None) -> list[str]:
    """The prompts of a file or data set in their order, each once."""
    lines = read_prompts(expanded(source), data_dir)
    return list(dict.fromkeys(line.prompt for _, line in lines))


def load_benchmark_prompts(
    source: str, data_dir: Path | None = None, path: Path | None = None
) -> list[BenchmarkPrompt]:
    """The prompts of t2i-compbench, or of one of `BENCHMARKS`, with what is known of each.

    Args, Raises: as `load_prompts`.
    """
    if source in BENCHMARKS:
        directory = data_home(data_dir) / source
        return load_benchmark(source, directory, expanded(path) if path else None)
    lists = load_prompts(source, "validation", data_dir, path)
    return [
        BenchmarkPrompt(text, category=category)
        for text, category in zip(lists.texts, lists.categories, strict=True)
    ]


def _read_file(source: str, split: str, data_dir: Path | None) -> list[str]:
    """The split's prompts of a file, each once; no prompt's split depends on the others."""
    check_source(source)
    prompts = _distinct_prompts(source, data_dir)
    texts = [text for text in prompts if SPLITS[is_held_out(text, FILE_HELD_OUT)] == split]
    if not texts:
        raise InputError(
            f"{source} has no {split} prompts: a hash of its text puts one prompt in"
            f" {FILE_HELD_OUT} into validation, and none of its {len(prompts)} is for {split};"
            " add more"
        )
    return texts
