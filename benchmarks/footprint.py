"""What the published backbones take of a GPU's memory, by tracing: no GPU and no weights needed.

    python -m benchmarks.footprint [--batch N] [--size PIXELS] [--json]

The architectures are those of `benchmarks.gpu`, which measures the same on a GPU. A row is a
quantization and an offload: all models together, as `asyncdiff sample` has them, and with the text
encoders gone before the rest is loaded, as in `asyncdiff eval` and `train`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import typer
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine.backbones.memory.advice import ALLOWANCE
from asyncdiff_cli.engine.backbones.memory.footprint import GIB, footprint
from asyncdiff_cli.engine.backbones.memory.tracing import Work
from asyncdiff_cli.engine.backbones.registry import OFFLOADS, REGISTRY
from benchmarks import options
from benchmarks.gpu.architecture import ARCHITECTURES, write_published

QUANTIZED = (None, "int8", "nf4")
"""fp8 takes as much as int8, but for a byte a row."""
CUDA = torch.device("cuda")


def rows(name: str, batch: int, size: int) -> list[dict[str, Any]]:
    """Bytes at most for each quantization and offload that go together."""
    entry, found = REGISTRY[name], []
    work = Work(batch, size, size, entry.guidance_scale, tokens=entry.max_sequence_length)
    with TemporaryDirectory() as directory:
        write_published(name, Path(directory))
        for quantize in QUANTIZED:
            for offload in OFFLOADS:
                if quantize is not None and offload == "sequential":
                    continue  # which is refused
                dtype = torch.bfloat16 if quantize == "int8" else torch.float16
                whole, apart = (
                    footprint(Path(directory), dtype, work, quantize, offload, first, CUDA)
                    for first in (False, True)
                )
                found.append(
                    {
                        "backbone": name,
                        "quantize": quantize or "none",
                        "offload": offload,
                        "weights": whole.weights,
                        "all_together": whole.peak,
                        "encoders_first": apart.peak,
                    }
                )
    return found


def main(
    batch: options.Batch = 1,
    size: options.Size = 512,
    json: options.Json = False,
) -> None:
    """Estimate the memory of both backbones in fp16; int8 overflows there, and is in bf16."""
    render.quiet_libraries()
    found = [row for name in ARCHITECTURES for row in rows(name, batch, size)]
    if json:
        render.as_json({"batch": batch, "size": size, "rows": found})
        return
    keys = ("weights", "all_together", "encoders_first")
    table = Table("backbone", "quantize", "offload", *(key.replace("_", " ") for key in keys))
    for row in found:
        sizes = [f"{row[key] / GIB:.1f} GiB" for key in keys]
        table.add_row(row["backbone"], row["quantize"], row["offload"], *sizes)
    render.tables([table])
    render.line(
        f"beside which {ALLOWANCE / GIB:.1f} GiB should be free for the allocator and libraries"
    )


if __name__ == "__main__":
    typer.run(main)
