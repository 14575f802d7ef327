"""The real backbones at full size with random weights, which need no download: what they cost.

    python -m benchmarks.gpu [--backbones flux,sd35] [--budget SECONDS] [--out FILE]

Builds the architectures in fp16 and measures, at 512×512, in this order: whether D = 0 returns the
stock pipeline's bits; what the policies add to the stock pipeline, and the training to its bare
rollout, in interleaved rounds; peaks of memory beside their estimates; the denoiser's TFLOP/s as a
share of a matrix product's; and the same with compiled blocks. A row is written to FILE, as JSON,
as soon as it is known. One that fails says why, and so does one that the budget, which counts from
the start of the process, has no time for; the others go on.

Nothing is downloaded. `python -m benchmarks.gpu.pack` gathers all that it needs in one folder.
"""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer

from asyncdiff_cli import render
from asyncdiff_cli.engine import InputError
from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.dtypes import dtype_name
from benchmarks import options
from benchmarks.gpu import compiled, exactness, memory, speed, tables, training
from benchmarks.gpu.architecture import ARCHITECTURES, parameters
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.rows import Journal, Row, Task, perform
from benchmarks.gpu.settings import SECTIONS, Settings

TASKS: Mapping[str, Callable[[Bench], Iterator[Task]]] = {
    "exactness": exactness.tasks,
    "overhead": speed.overhead,
    "training": training.tasks,
    "memory": memory.tasks,
    "speed": speed.speed,
    "compile": compiled.tasks,
}


def describe(bench: Bench) -> list[Row]:
    """What the numbers belong to."""
    settings, begun = bench.settings, time.perf_counter()
    backbone = bench.loaded
    components = backbone.pipe.components.items()
    sizes = {n: parameters(m) for n, m in components if isinstance(m, torch.nn.Module)}
    return [
        {
            "parameters": sum(sizes.values()),
            "build_seconds": time.perf_counter() - begun,
            "halved": bench.halved,
            "layers": settings.layers,
            "tiny": settings.tiny,
            "device": backbone.device_name,
            "dtype": dtype_name(backbone.dtype),
            "size": settings.size,
            "steps": settings.evaluations,
            "threads": torch.get_num_threads(),
            **{name: version(name) for name in ("torch", "diffusers", "transformers")},
            "date": time.strftime("%Y-%m-%d"),
        }
    ]


def run(benches: Mapping[str, Bench], sections: Sequence[str], journal: Journal) -> None:
    """Every section for each backbone, of which one is on the device at a time."""
    names, described = list(benches), set()
    for section in sections:
        for name in names:
            for other in names:
                if other != name:
                    benches[other].release()
            bench = benches[name]
            measure = partial(perform, journal=journal, settings=bench.settings)
            if name not in described:
                described.add(name)
                measure(
                    [Task({}, partial(describe, bench))], {"section": "model", "backbone": name}
                )
            measure(TASKS[section](bench), {"section": section, "backbone": name})
        names.reverse()  # what is on the device goes on with the next section


def parse_names(kind: str, text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """The known names that are listed with commas, in their own order; None for all.

    Raises:
        InputError: for one that does not exist.
    """
    chosen = known if text is None else text.split(",")
    for name in chosen:
        check_choice(kind, name, known)
    return tuple(name for name in known if name in chosen)


def parse_batches(text: str) -> tuple[int, ...]:
    """Numbers of images, from "1,4,16".

    Raises:
        InputError: for anything else.
    """
    try:
        batches = tuple(int(part) for part in text.split(","))
    except ValueError:
        batches = ()
    if not batches or min(batches) < 1:
        raise InputError(f"batches are numbers from 1, such as 1,4,16, and not {text!r}")
    return batches


def main(
    backbones: Annotated[str | None, typer.Option(help="Default flux,sd35.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Blocks of each kind.")] = None,
    device: Annotated[str | None, typer.Option()] = None,
    dtype: Annotated[str | None, typer.Option(help="Default fp16, on a CPU fp32.")] = None,
    size: options.Size = 512,
    steps: Annotated[int | None, typer.Option(min=2, help="Default: the paper's.")] = None,
    batches: Annotated[str, typer.Option(help="Images at once.")] = "1,4",
    rounds: Annotated[int, typer.Option(min=3, help="At most.")] = 12,
    group: Annotated[int, typer.Option(min=2, help="Images of a training iteration.")] = 16,
    product: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the matrix product. Default 8192, on a CPU 1024."),
    ] = None,
    sections: Annotated[str | None, typer.Option(help=f"Of {','.join(SECTIONS)}.")] = None,
    compiler: Annotated[str, typer.Option(help="The backend of torch.compile.")] = "inductor",
    scratch: Annotated[Path | None, typer.Option(help="A disk with room for the weights.")] = None,
    budget: Annotated[float, typer.Option(min=1, help="Seconds, as a whole.")] = 570.0,
    tiny: Annotated[bool, typer.Option(help="A toy's widths, to try the benchmark out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON lines.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Add the rows, as JSON lines, to this file.")
    ] = None,
) -> None:
    """Measure backbones of random weights; a table of each section is printed at the end."""
    render.quiet_libraries()
    given = {
        "device": device, "dtype": dtype, "layers": layers, "tiny": tiny, "size": size,
        "steps": steps, "batches": parse_batches(batches), "rounds": rounds, "group": group,
        "product": product, "compiler": compiler, "scratch": scratch, "budget": budget,
    }  # fmt: skip
    names = parse_names("backbone", backbones, tuple(ARCHITECTURES))
    benches = {name: Bench(Settings(backbone=name, **given)) for name in names}
    journal = Journal(out, lambda row: print(json_module.dumps(row), flush=True))
    run(benches, parse_names("section", sections, SECTIONS), journal)
    if not json:
        for section in dict.fromkeys(row["section"] for row in journal.rows):
            own = [row for row in journal.rows if row["section"] == section]
            render.tables([tables.table(section, own)])
    if journal.failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
