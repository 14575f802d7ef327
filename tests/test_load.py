"""A large evaluation takes time in proportion to its rows, and memory for little but their keys."""

import math
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from asyncdiff_cli.app import run
from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.evaluation.store import FAN_IN, Store
from asyncdiff_cli.engine.sampling.sample import SampleResult
from tests.helpers.processes import server

PROMPTS = int(os.environ.get("LOAD_PROMPTS", 100_000))
"""Of the long test, which takes ten minutes or more on a machine that does nothing else."""
POLICIES = ("baseline", "fixed:0.5")
BATCH = 8
SIDE = 16
TIMED = 5000
"""From so many prompts on a run lasts long enough to compare its quarters."""
KEPT = 1200
"""Bytes of memory per row while the last part and the table are made of all: keys and scores."""
SLACK = 96 << 20
"""Bytes of memory for what does not depend on the rows, such as a part that is being compacted."""
SPAN = 20
"""Measurements of a run."""


@dataclass(frozen=True)
class Mark:
    """How a process fares when some of its rows are written."""

    rows: int
    seconds: float
    peak: int
    """Bytes."""
    parts: int


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def drawn(canvas, text, seeds, policy, num_inference_steps, clock, gamma=1.0, on_step=None):
    """Pictures of noise, in place of a model's."""
    pixels = [np.random.default_rng(s).integers(256, size=(SIDE, SIDE, 3)) for s in seeds]
    images = [Image.fromarray(values.astype(np.uint8)) for values in pixels]
    times = torch.linspace(1, 0.5, num_inference_steps).repeat(len(seeds), 1)
    return images, SampleResult(
        images, torch.zeros(len(seeds)), times, torch.zeros_like(times[:, 1:])
    )


def encoded(canvas, prompt):
    return TextConditions(torch.zeros(1, 2, 4), torch.zeros(1, 4))


def evaluate(arguments, rows, dies_at, told):
    """Run `eval` without its model until it has written so many rows, or to the end.

    Args:
        rows: how many there are to write.
        dies_at: how many there are when this process is killed.
        told: where the marks are sent.
    """
    marks, written, start = [], 0, time.perf_counter()
    write = Store.write

    def measured(store, batch):
        nonlocal written
        path = write(store, batch)
        written += len(batch)
        if dies_at is not None and written >= dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if written * SPAN // rows > len(marks):
            seconds = time.perf_counter() - start
            marks.append(Mark(written, seconds, peak(), len(store.parts())))
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "write", measured)
        patch.setattr(Canvas, "draw", drawn)
        patch.setattr(Canvas, "_encode", encoded)
        patch.setattr(os, "fsync", lambda _: None)  # it is not the disk that is measured
        code = run(arguments)
    told.send((code, marks, peak()))


def in_process(*given):
    """The same in a process of its own; None if it was killed."""
    here, there = server().Pipe(duplex=False)
    process = server().Process(target=evaluate, args=(*given, there))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        return None
    finally:
        process.join()


@pytest.fixture(scope="module")
def model(pipelines):
    return pipelines["sd3"]


@pytest.mark.parametrize("count", [300, pytest.param(PROMPTS, marks=pytest.mark.slow)])
def test_it_takes_time_by_its_rows_and_memory_by_their_keys(tmp_path, model, count):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "store"
    prompts.write_text("\n".join(f"a picture of thing number {n}" for n in range(count)))
    arguments = [
        *("eval", "--policies", ",".join(POLICIES), "--steps", "4", "--size", str(SIDE)),
        *("--rewards", "sharpness", "--batch-size", str(BATCH), "--images", "0"),
        *("--dataset", str(prompts), "--limit", str(count), "--out", str(out)),
        *("--backbone", str(model), "--device", "cpu", "--json"),
    ]
    rows = count * len(POLICIES)
    assert in_process(arguments, rows, rows // 10) is None
    left = rows - len(Store(out).read([]))
    assert 0 < left < rows
    code, marks, last = in_process(arguments, left, None)
    assert code == 0
    assert len(marks) == SPAN
    found = Store(out).read(["prompt", "policy"]).select(["prompt", "policy"]).to_pylist()
    assert len(found) == rows == len({tuple(row.values()) for row in found})

    levels = math.ceil(math.log(rows / BATCH, FAN_IN))
    assert max(mark.parts for mark in marks) <= FAN_IN * (levels + 1)
    assert len(Store(out).parts()) <= FAN_IN
    assert marks[-1].peak - marks[SPAN // 5 - 1].peak <= SLACK
    assert last - marks[-1].peak <= SLACK + rows * KEPT
    if count >= TIMED:
        at = [mark.seconds for mark in marks[SPAN // 4 - 1 :: SPAN // 4]]
        assert at[3] - at[2] < 2 * (at[1] - at[0])
