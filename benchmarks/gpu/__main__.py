"""The real backbones at full size with random weights, which need no download: what they cost.

    python -m benchmarks.gpu [--backbone flux|sd35] [--layers N] [--compile] [--json] [--out FILE]

Builds the architecture in fp16 and measures, at 512×512: time per image and the denoiser's TFLOP/s
as a share of a matrix product's; what the policies add to the stock pipeline, and the training to
its bare rollout, in interleaved rounds; the peak memory of each offload and quantization; and
whether D = 0 returns the stock pipeline's bits. A section that fails is reported and the others
go on. Sections take fewer rounds, and rows of the memory are left out, rather than run over
--budget.
"""

from __future__ import annotations

import gc
import json as json_module
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from asyncdiff_cli import render
from asyncdiff_cli.engine import Backbone, InputError
from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.files import write_text
from benchmarks.gpu import tables
from benchmarks.gpu.architecture import ARCHITECTURES, parameters
from benchmarks.gpu.compiled import measure_compiled
from benchmarks.gpu.exactness import measure_exactness
from benchmarks.gpu.memory import measure_memory, write
from benchmarks.gpu.settings import SECTIONS, OverBudgetError, Settings
from benchmarks.gpu.speed import Timings, measure_overhead, measure_speed, timings
from benchmarks.gpu.training import measure_training

WIDE = 160
"""Columns of a table where there is no terminal."""


@dataclass
class Run:
    """The backbone and what sections share. Each method of a section returns its report."""

    settings: Settings
    sections: tuple[str, ...]
    backbone: Backbone | None = None
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def loaded(self) -> Backbone:
        """The backbone, built when it is first needed."""
        if self.backbone is None:
            self.backbone = self.settings.make_backbone()
        return self.backbone

    @cached_property
    def timings(self) -> Timings:
        """The same rounds tell the speed and the overhead."""
        return timings(self.loaded, self.settings, policies="overhead" in self.sections)

    def exactness(self) -> dict[str, Any]:
        return measure_exactness(self.loaded, self.settings)

    def speed(self) -> dict[str, Any]:
        return measure_speed(self.loaded, self.settings, self.timings)

    def overhead(self) -> dict[str, Any]:
        return measure_overhead(self.timings)

    def training(self) -> dict[str, Any]:
        known = self.sections[: self.sections.index("training")]
        per_image = self.timings.per_image if {"speed", "overhead"} & {*known} else 0.0
        return measure_training(self.loaded, self.settings, per_image)

    def compile(self) -> dict[str, Any]:
        return measure_compiled(self.loaded, self.settings)

    def memory(self) -> dict[str, Any]:
        if self.settings.where.type != "cuda":
            return {"reason": "CUDA only: there is no peak to read on this device"}
        with tempfile.TemporaryDirectory(dir=self.settings.scratch) as directory:
            size = write(self.loaded, Path(directory))
            self.backbone = None  # each configuration gets the GPU for itself
            gc.collect()
            torch.cuda.empty_cache()
            rows = list(measure_memory(Path(directory), self.settings))
        return {"weight_bytes": size, "rows": rows}


def describe(run: Run) -> dict[str, Any]:
    """What the numbers belong to."""
    settings, backbone = run.settings, run.loaded
    components = backbone.pipe.components.items()
    sizes = {n: parameters(m) for n, m in components if isinstance(m, torch.nn.Module)}
    return {
        "backbone": settings.backbone,
        "layers": settings.layers,
        "tiny": settings.tiny,
        "parameters": sizes,
        "device": backbone.device_name,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "size": settings.size,
        "steps": settings.evaluations,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "date": time.strftime("%Y-%m-%d"),
    }


@contextmanager
def failures(report: dict[str, Any], name: str) -> Iterator[None]:
    """A section that raises leaves its reason in the report; how it came to it is on stderr."""
    try:
        yield
    except OverBudgetError as error:
        report[name] = {"reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        kind, text = type(error).__name__, " ".join(str(error).split())
        report[name] = {"reason": f"{kind}: {text}", "failed": True}


def parse_sections(text: str | None, compiled: bool) -> tuple[str, ...]:
    """The sections to run, in their order.

    Raises:
        InputError: for one that does not exist.
    """
    default = [name for name in SECTIONS if name != "compile"]
    chosen = [*(default if text is None else text.split(",")), *(["compile"] if compiled else [])]
    for name in chosen:
        check_choice("section", name, SECTIONS)
    return tuple(name for name in SECTIONS if name in chosen)


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


def perform(run: Run, console: Console, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run the sections, and print and keep each as soon as there is something."""
    begun = time.perf_counter()
    run.report.update(describe(run), sections={})
    console.print(", ".join(f"{k} {v}" for k, v in run.report.items() if k != "sections"))
    for name in run.sections:
        start, sections = time.perf_counter(), run.report["sections"]
        with failures(sections, name):
            run.settings.check_left(0)
            sections[name] = getattr(run, name)()
        sections[name]["section_seconds"] = round(time.perf_counter() - start, 2)
        run.report["seconds"] = round(time.perf_counter() - begun, 2)
        console.print(tables.table(name, sections[name]))
        keep(run.report)
    return run.report


def main(
    backbone: Annotated[str, typer.Option(help="flux or sd35.")] = "flux",
    layers: Annotated[int | None, typer.Option(min=1, help="Blocks of each kind.")] = None,
    device: Annotated[str | None, typer.Option()] = None,
    dtype: Annotated[str | None, typer.Option(help="Default fp16, on a CPU fp32.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Height and width in pixels.")] = 512,
    steps: Annotated[int | None, typer.Option(min=2, help="Default: the paper's.")] = None,
    batches: Annotated[str, typer.Option(help="Images at once.")] = "1,4,16",
    rounds: Annotated[int, typer.Option(min=3, help="At most.")] = 12,
    group: Annotated[int, typer.Option(min=2, help="Images of a training iteration.")] = 16,
    product: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the matrix product. Default 8192, on a CPU 1024."),
    ] = None,
    sections: Annotated[str | None, typer.Option(help=f"Of {','.join(SECTIONS)}.")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Also the section compile.")] = False,
    compiler: Annotated[str, typer.Option(help="The backend of torch.compile.")] = "inductor",
    scratch: Annotated[Path | None, typer.Option(help="A disk with room for the weights.")] = None,
    budget: Annotated[float, typer.Option(min=1, help="Seconds, as a whole.")] = 570.0,
    tiny: Annotated[bool, typer.Option(help="A toy's widths, to try the benchmark out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option(help="Keep the JSON object in this file.")] = None,
) -> None:
    """Measure a backbone of random weights; tables go to stderr with --json."""
    render.quiet_libraries()
    check_choice("backbone", backbone, ARCHITECTURES)
    settings = Settings(
        backbone=backbone,
        device=device,
        dtype=dtype,
        layers=layers,
        tiny=tiny,
        size=size,
        steps=steps,
        batches=parse_batches(batches),
        rounds=rounds,
        group=group,
        product=product,
        compiler=compiler,
        scratch=scratch,
        budget=budget,
    )
    console = Console(stderr=json)
    if not console.is_terminal:
        console.width = WIDE

    def keep(report: dict[str, Any]) -> None:
        if out is not None:
            write_text(out, json_module.dumps(report, indent=1) + "\n")

    report = perform(Run(settings, parse_sections(sections, compile_)), console, keep)
    if json:
        print(json_module.dumps(report))
    if any(section.get("failed") for section in report["sections"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
