"""The peak of a GPU's memory beside its estimate: of batches, and for each way to hold a model.

    python -m benchmarks.gpu.memory DIRECTORY --quantize nf4 --offload none

is one way, in a process of its own, so that a peak is of nothing else. The pipeline is loaded as
`asyncdiff` loads any; the prompt passes through the text encoders.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from asyncdiff_cli import render
from asyncdiff_cli.engine import Backbone, load_backbone, sample
from asyncdiff_cli.engine.backbones.memory.footprint import footprint
from asyncdiff_cli.engine.backbones.memory.tracing import Work
from asyncdiff_cli.engine.backbones.registry import OFFLOADS, QUANTIZATIONS
from asyncdiff_cli.engine.dtypes import dtype_name
from benchmarks.gpu.architecture import write_configuration
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.rows import Row, Task, reason
from benchmarks.gpu.settings import OverBudgetError, Settings

NONE = "none"
READABLE = ("cuda",)
"""Kinds of devices that know their peak."""
STEPS = 2
LEAST_SECONDS = 30.0
"""A row in a process of its own takes about so long, so with less left none is begun."""
WRITING = 1e9
"""Bytes a second that a disk takes."""
ROOT = Path(__file__).parents[2]


def configurations() -> list[tuple[str, str]]:
    """Quantization and offload: each alone before both together."""
    pairs = list(product((NONE, *QUANTIZATIONS), OFFLOADS))
    return sorted(pairs, key=lambda pair: sum(name != NONE for name in pair))


def weight_bytes(backbone: Backbone) -> int:
    """Bytes of all models."""
    models = [m for m in backbone.pipe.components.values() if isinstance(m, torch.nn.Module)]
    return sum(parameter.nbytes for model in models for parameter in model.parameters())


def write(backbone: Backbone, directory: Path) -> int:
    """Save the pipeline, and return how many bytes of weights it has.

    Raises:
        OSError: if the disk has no room for it.
    """
    size = weight_bytes(backbone)
    free = shutil.disk_usage(directory).free
    if free < 1.05 * size:
        raise OSError(
            f"{directory} has {render.size(free)} free, and the pipeline takes"
            f" {render.size(size)}: give --scratch a larger disk"
        )
    backbone.pipe.save_pretrained(directory)
    return size


def tasks(bench: Bench) -> Iterator[Task]:
    """Peaks of batches as the backbone is, and of one image in each other way to hold it.

    Raises:
        OverBudgetError: on a CPU, which has no peak to read.
    """
    settings = bench.settings
    if settings.where.type not in READABLE:
        raise OverBudgetError("there is no peak to read on a CPU")
    with TemporaryDirectory(dir=settings.scratch) as place:
        write_configuration(bench.loaded.pipe, Path(place))
        for batch in (*settings.batches, settings.group):
            yield Task({"batch": batch}, partial(_peak, bench, Path(place), batch))
    with TemporaryDirectory(dir=settings.scratch) as place:
        least = settings.reserve + weight_bytes(bench.loaded) / WRITING
        yield Task({}, partial(_written, bench, Path(place)), least)
        if not (Path(place) / "model_index.json").is_file():
            return
        bench.release()  # each configuration gets the GPU for itself
        least = LEAST_SECONDS
        for quantize, offload in configurations():
            key, begun = {"batch": 1, "quantize": quantize, "offload": offload}, time.monotonic()
            measure = partial(run_apart, Path(place), settings, quantize, offload)
            yield Task(key, lambda measure=measure: [measure()], least + settings.reserve)
            least = max(least, time.monotonic() - begun)


def _written(bench: Bench, directory: Path) -> Iterator[Row]:
    yield {"weight_bytes": write(bench.loaded, directory)}


def _peak(bench: Bench, directory: Path, batch: int) -> Iterator[Row]:
    """The peak of a batch, all models together."""
    backbone, device = bench.loaded, bench.device
    entry, side = backbone.entry, backbone.size
    work = Work(batch, side, side, entry.guidance_scale, tokens=entry.max_sequence_length)
    estimated = footprint(directory, backbone.dtype, work, device=device).peak
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    drawn = sample(backbone, ["a cat"] * batch, num_inference_steps=STEPS, output_type="latent")
    with torch.no_grad():
        backbone.adapter.decode(drawn.latents, side, side, "pt")  # in slices, as it is estimated
    peak = torch.cuda.max_memory_allocated(device)
    yield {
        "peak_bytes": peak,
        "reserved_bytes": torch.cuda.max_memory_reserved(device),
        "estimated_bytes": estimated,
        "peak_over_estimate": peak / estimated,
    }


def run_apart(directory: Path, settings: Settings, quantize: str, offload: str) -> Row:
    """One configuration in a new process.

    Raises:
        RuntimeError: with the reason why there is nothing measured.
    """
    dtype = dtype_name(settings.precision)
    arguments = {
        "--quantize": quantize,
        "--offload": offload,
        "--device": str(settings.where),
        "--dtype": "bfloat16" if (quantize, dtype) == ("int8", "float16") else dtype,
        "--size": str(settings.size),
    }
    command = [sys.executable, "-m", "benchmarks.gpu.memory", str(directory)]
    try:
        done = subprocess.run(
            [*command, *(part for pair in arguments.items() for part in pair)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=max(LEAST_SECONDS, settings.left - settings.reserve),
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"stopped, to stay within --budget {settings.budget:g}") from None
    try:
        row = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = [f"exit code {done.returncode}", *done.stderr.splitlines()][-1]
        raise RuntimeError(f"died: {last}") from None
    if "reason" in row:
        raise RuntimeError(row["reason"])
    return row


def draw_one(
    directory: Path, device: torch.device, dtype: str, size: int, options: dict[str, str]
) -> dict[str, Any]:
    """Load the pipeline and draw one image: peaks in bytes, also the estimated one, and seconds."""
    on_gpu = device.type == "cuda"

    def peak() -> int | None:
        if not on_gpu:
            return None
        torch.cuda.synchronize(device)
        found = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return found

    start = time.perf_counter()
    backbone = load_backbone(str(directory), dtype=dtype, device=device, **options)
    loading, loaded = peak(), time.perf_counter()
    sample(backbone, ["a cat"], num_inference_steps=STEPS, height=size, width=size)
    drawing, drawn = peak(), time.perf_counter()
    entry, setup = backbone.entry, backbone.setup
    work = Work(1, size, size, entry.guidance_scale, tokens=entry.max_sequence_length)
    held = setup.quantize, setup.offload
    return {
        "peak_bytes": drawing,
        "estimated_bytes": footprint(directory, backbone.dtype, work, *held, device=device).peak,
        "loading_peak_bytes": loading,
        "host_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "load_seconds": loaded - start,
        "draw_seconds": drawn - loaded,
    }


def main(
    directory: Annotated[Path, typer.Argument(help="A diffusers pipeline.")],
    quantize: Annotated[str, typer.Option()] = NONE,
    offload: Annotated[str, typer.Option()] = NONE,
    device: Annotated[str, typer.Option()] = "cuda",
    dtype: Annotated[str, typer.Option()] = "float16",
    size: Annotated[int, typer.Option()] = 512,
) -> None:
    """Measure one configuration; print one JSON object."""
    render.quiet_libraries()
    chosen = {"quantize": quantize, "offload": offload}
    options = {name: value for name, value in chosen.items() if value != NONE}
    try:
        row = draw_one(directory, torch.device(device), dtype, size, options)
    except Exception as error:  # a library that is missing, or too little memory, is a result
        row = {"reason": reason(error)}
    print(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
