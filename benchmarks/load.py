"""Whether what reads a store takes time in proportion to its rows.

    python -m benchmarks.load [--rows 5000 --rows 20000] [--json]

Makes stores of so many rows of four policies, a part per batch of 8 as older versions left them,
and times what commands do with one, each store in a process of its own: the keys that a resumed
evaluation asks for, the chart of `histogram`, and the report; then the compaction, and the same
again. Beside the seconds is the time per row over that of the smallest store: 1 is linear.
"""

from __future__ import annotations

import itertools
import json as json_module
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from rich.table import Table

from asyncdiff_cli import render
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.figures.distributions import distributions, write_histogram
from asyncdiff_cli.engine.figures.report import write_report

POLICIES = ("baseline", "learned", "lifted", "fixed:0.5")
STEPS = 10
BATCH = 8
SIZES = (5000, 20000)
REWARDS = ("image_reward", "hpsv2", "clip", "pickscore", "noise")
SETTINGS = {
    **{"backbone": "flux", "revision": "0" * 40, "fingerprint": None, "dtype": "float16"},
    **{"scheduler": "euler", "guidance_scale": 5.0, "size": 512, "dataset": "coco2014"},
    **{"split": "validation", "prompts_sha256": "0" * 64, "seed": 42},
    "rewards": {name: {"revision": None, "dtype": "float32"} for name in REWARDS},
}


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows of a store, with numbers that differ and a provenance of the usual size."""
    rng = np.random.default_rng(0)
    for number in range(count):
        prompt_id, policy = number // len(POLICIES), POLICIES[number % len(POLICIES)]
        deviations = [] if policy == "baseline" else rng.uniform(-0.5, 0.5, STEPS - 1).tolist()
        prompt = f"A photograph of thing number {prompt_id} on a table beside a window."
        record = {
            "batch": [{"prompt": prompt, "seed": prompt_id}] * BATCH,
            "device": "NVIDIA H100 80GB HBM3",
            "deviations": deviations,
            "versions": {"asyncdiff-cli": "0.1.0", "torch": "2.9.0", "diffusers": "0.36.0"},
        }
        yield {
            "prompt_id": prompt_id,
            "prompt": prompt,
            "category": None,
            "seed": 10**12 + prompt_id,
            "policy": policy,
            "gamma": 1.0,
            "bound": 0.5,
            "num_inference_steps": STEPS,
            "deviations": deviations or [0.0] * (STEPS - 1),
            "cond_sigmas": np.linspace(1, 0.1, STEPS).tolist(),
            "seconds": 1.0,
            "policy_settings": json_module.dumps({"name": policy}),
            "image": None,
            "provenance": json_module.dumps(record),
            **dict(zip(REWARDS, rng.normal(size=len(REWARDS)).tolist(), strict=True)),
        }


def fill(path: Path, count: int) -> Store:
    """A store of so many rows, in parts of `BATCH`."""
    store = Store.open(path, SETTINGS)
    store.begin()
    every = rows(count)
    while batch := list(itertools.islice(every, BATCH)):
        store.add(pa.Table.from_pylist(batch, schema=store.schema))
    return store


def jobs(store: Store, out: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, in order."""
    reading = {
        "keys": store.keys,
        "histogram": lambda: write_histogram(
            distributions([("store", store)], None), out / "histogram.png"
        ),
        "report": lambda: write_report(store.path, out / "report.html"),
    }
    again = {f"{name}, compacted": job for name, job in reading.items()}
    return {**reading, "compact": store.compact, **again}


def measure(count: int) -> dict[str, float]:
    """Seconds of each job on a store of so many rows."""
    seconds = {}
    with tempfile.TemporaryDirectory() as directory:
        store = fill(Path(directory) / "store", count)
        for name, job in jobs(store, Path(directory)).items():
            start = time.perf_counter()
            job()
            seconds[name] = time.perf_counter() - start
    return seconds


def apart(count: int) -> dict[str, float]:
    """Measure as `measure` does, in a process of its own."""
    code = f"import json; from benchmarks.load import measure; print(json.dumps(measure({count})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json_module.loads(done.stdout.splitlines()[-1])


def main(
    rows: Annotated[list[int] | None, typer.Option(metavar="N", help="Rows of a store.")] = None,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    counts = sorted(rows or SIZES)
    found = {count: apart(count) for count in counts}
    if json:
        typer.echo(json_module.dumps({"seconds": found}))
        return
    table = Table("", *(f"{count:,} rows" for count in counts), "per row")
    for name, first in found[counts[0]].items():
        own = [found[count][name] for count in counts]
        ratio = own[-1] / counts[-1] / (first / counts[0])
        table.add_row(name, *(f"{seconds:.2f} s" for seconds in own), f"{ratio:.2f}")
    render.tables([table])


if __name__ == "__main__":
    typer.run(main)
