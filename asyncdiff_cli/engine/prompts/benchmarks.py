"""The prompts of benchmarks whose pictures are judged by programs of their own.

Each is what its repository has, read as it lies there. Nothing is trained on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

from asyncdiff_cli.engine.downloads import download
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.fields import Prompt, validated
from asyncdiff_cli.engine.files import listed
from asyncdiff_cli.engine.prompts.files import read_entries
from asyncdiff_cli.engine.prompts.prompt_set import ALL, PromptSet
from asyncdiff_cli.engine.reading import problem, read_text

HPSV2_STYLES = ("anime", "concept-art", "paintings", "photo")


class BenchmarkPrompt(NamedTuple):
    """A prompt, and what its benchmark says of it."""

    prompt: str
    name: str = ""
    """What its benchmark calls it: the stem of its file, or a style and a number in it."""
    category: str | None = None
    values: Mapping[str, Any] = {}
    """The line that it is in, where that has more than the prompt."""


class BenchmarkFiles(NamedTuple):
    """Where the prompts of a benchmark are."""

    read: Callable[[Path], list[BenchmarkPrompt]]
    what: str
    """What is read, and where it lies."""
    url: str = ""
    """The file at a pinned commit; empty where there are too many to download."""
    sha256: str = ""


def load_benchmark(source: str, directory: Path, path: Path | None = None) -> list[BenchmarkPrompt]:
    """The prompts of a benchmark in their published order.

    Args:
        directory: where downloads are kept.
        path: a copy in place of the download.

    Raises:
        InputError: if it is not downloaded and not given, or is not what it should be.
        AsyncDiffError: if the download fails.
    """
    files = BENCHMARKS[source]
    if path is None and not files.url:
        raise InputError(f"{source} is not downloaded: give --prompts with {files.what}")
    if path is None:
        path = download(files.url, directory / Path(files.url).name, files.sha256)
    found = files.read(path)
    if not found:
        raise InputError(f"{path} holds no prompt: give {files.what}")
    return found


def benchmark_set(source: str, prompts: list[BenchmarkPrompt]) -> PromptSet:
    """The prompts as an evaluation draws them."""
    categories = tuple(prompt.category for prompt in prompts if prompt.category is not None)
    return PromptSet(source, ALL, tuple(prompt.prompt for prompt in prompts), categories)


class _Line(BaseModel):
    prompt: Prompt


class _GenEvalLine(_Line):
    tag: str
    include: list[Any]


class _GenEval2Line(_Line):
    tag: None = None
    vqa_list: list[Any]


def _read_lines(
    line: type[_GenEvalLine] | type[_GenEval2Line], path: Path
) -> list[BenchmarkPrompt]:
    """The objects of a file of JSON Lines."""
    prompts = []
    for where, values in read_entries(path):
        found = validated(line, values, where)
        prompts.append(BenchmarkPrompt(found.prompt, "", found.tag, values))
    return prompts


def _read_texts(directory: Path) -> list[BenchmarkPrompt]:
    """The texts of a directory, a prompt each, by the names of their files."""
    prompts = []
    for path in listed(directory, "[!.]*.txt"):
        line = validated(_Line, {"prompt": read_text(path).strip()}, str(path))
        prompts.append(BenchmarkPrompt(line.prompt, path.stem))
    return prompts


def _read_styles(directory: Path) -> list[BenchmarkPrompt]:
    """The lists of a directory, one JSON array of prompts a style."""
    return [
        BenchmarkPrompt(prompt, f"{style}/{number:05d}", style)
        for style in HPSV2_STYLES
        for number, prompt in enumerate(_read_array(directory / f"{style}.json"))
    ]


_ARRAY = TypeAdapter(list[Prompt])


def _read_array(path: Path) -> list[str]:
    try:
        return _ARRAY.validate_json(read_text(path))
    except ValidationError as error:
        raise InputError(f"{path} is no list of prompts: {problem(error)}") from None


BENCHMARKS = {
    "geneval": BenchmarkFiles(
        partial(_read_lines, _GenEvalLine),
        "prompts/evaluation_metadata.jsonl of djghosh13/geneval",
        "https://raw.githubusercontent.com/djghosh13/geneval/"
        "af4902f24d3ca90ebbb446dd9891a59e0f82725f/prompts/evaluation_metadata.jsonl",
        "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
    ),
    "geneval2": BenchmarkFiles(
        partial(_read_lines, _GenEval2Line),
        "geneval2_data.jsonl of facebookresearch/GenEval2",
        "https://raw.githubusercontent.com/facebookresearch/GenEval2/"
        "a6e82d2289e8d418f27f0adee77908b07060eea3/geneval2_data.jsonl",
        "09233adbc9f877fba205f1a20efa4a8640e7e62a91dfd55893562bed8a928e43",
    ),
    "dpg": BenchmarkFiles(_read_texts, "the directory dpg_bench/prompts of TencentQQGYLab/ELLA"),
    "hpsv2": BenchmarkFiles(
        _read_styles,
        f"the directory of {', '.join(f'{style}.json' for style in HPSV2_STYLES)}, which the"
        " package hpsv2 puts into ~/.cache/hpsv2/datasets/benchmark",
    ),
}
