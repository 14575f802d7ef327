"""How long `asyncdiff sample` takes from nothing, beside a script of the stock pipeline.

    python -m benchmarks.startup [--rounds N] [--json]

Both draw one and the same picture of mini on the CPU, each in a process of its own, in turns and in
an order of its own each round. Compared is the time of the processor, which other programs on the
machine change less than the time of the clock; both are printed.
"""

from __future__ import annotations

import json as json_module
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine import REGISTRY
from asyncdiff_cli.engine.backbones.registry import MINI_DIRECTORY
from benchmarks import options
from benchmarks.overhead import measure, median_interval

STARTUP_TARGET = 1.05
PROMPT = "a red apple"
MINI = REGISTRY["mini"]
SCRIPT = f"""\
import sys
import torch
from diffusers import StableDiffusion3Pipeline

pipe = StableDiffusion3Pipeline.from_pretrained({str(MINI_DIRECTORY)!r}, dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
pipe(
    {PROMPT!r},
    num_inference_steps={MINI.num_inference_steps},
    guidance_scale={MINI.guidance_scale},
    max_sequence_length={MINI.max_sequence_length},
    generator=torch.Generator().manual_seed(0),
).images[0].save(sys.argv[1] + "/stock.png")
"""
"""What draws the same without this project."""


def lines(out: Path) -> dict[str, list[str]]:
    """The arguments of Python that draw into a directory, by way."""
    own = ["sample", PROMPT, "--deviation", "0", "--device", "cpu", "--out", str(out / "own")]
    return {"stock": ["-c", SCRIPT, str(out)], "asyncdiff": ["-m", "asyncdiff_cli", *own]}


def processor_seconds(arguments: list[str]) -> float:
    """Seconds of the processor that a run of Python takes."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"it ended with {os.waitstatus_to_exitcode(status)}: {arguments}")
    return usage.ru_utime + usage.ru_stime


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    json: options.Json = False,
) -> None:
    """Time a picture from nothing, by the command and by a script of the stock pipeline."""
    used: dict[str, list[float]] = {}

    def run(name: str, arguments: list[str]) -> None:
        used.setdefault(name, []).append(processor_seconds(arguments))

    start = time.perf_counter()
    with TemporaryDirectory() as out:
        ways = {name: partial(run, name, own) for name, own in lines(Path(out)).items()}
        wall = measure(ways, rounds)
    processor = {name: np.array(own[1:]) for name, own in used.items()}  # the first read the disk
    ratio, low, high = median_interval(processor["asyncdiff"] / processor["stock"])
    result = {
        "rounds": rounds,
        "seconds": round(time.perf_counter() - start),
        "target": STARTUP_TARGET,
        "ratio": round(ratio, 4),
        "interval": [round(low, 4), round(high, 4)],
        **{
            f"{name}_{kind}_seconds": round(float(np.median(own[name])), 3)
            for kind, own in (("processor", processor), ("wall", wall))
            for name in own
        },
    }
    if json:
        print(json_module.dumps(result))
        return
    table = Table(title="One picture of mini, from nothing")
    for heading in ("processor / stock", "95 % interval", f"≤ {STARTUP_TARGET}"):
        table.add_column(heading)
    table.add_row(
        f"{ratio:.3f}", f"{low:.3f} … {high:.3f}", "yes" if ratio <= STARTUP_TARGET else "no"
    )
    render.tables([table])
    render.fields({k: v for k, v in result.items() if k.endswith("seconds")})


if __name__ == "__main__":
    typer.run(main)
