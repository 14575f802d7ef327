"""The compiled transformer: ours beside the stock pipeline with the same, and recompilations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch._dynamo.utils import counters

from asyncdiff_cli.engine import Backbone, FixedDeviation, Policy, Synchronous, sample
from asyncdiff_cli.engine.backbones.setup import compile_blocks
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.rows import Row, Task
from benchmarks.gpu.speed import LEARNED_AIM, compared, fresh_module, timed
from benchmarks.overhead import LEAST, STOCK, measure, methods

AIMS = {"sample, synchronous": 1.0, "sample, fixed": 1.0, "sample, learned": LEARNED_AIM}
"""Times the compiled stock pipeline's seconds: 1 is no slower, as far as the interval can tell."""
GAMMAS = (0.0, 0.5, 1.5)
COMPILING = 40.0
"""Seconds that inductor takes for a block of each kind, at least."""
PART = 0.08
"""Share of the budget: after it no more rounds are begun than the least number."""


def graphs() -> int:
    """How many graphs have been compiled in this process."""
    return counters["stats"]["unique_graphs"]


def recompilations(backbone: Backbone, learned: Policy) -> int:
    """Graphs that are compiled when γ and the policy change, after the first image of a size."""

    def draw(policy: Policy, gamma: float) -> None:
        sample(backbone, ["a cat"], policy, gamma, num_inference_steps=3, output_type="latent")

    draw(Synchronous(), 1.0)
    before = graphs()
    for policy in (Synchronous(), FixedDeviation(0.5), FixedDeviation(-0.25), learned):
        for gamma in GAMMAS:
            draw(policy, gamma)
    return graphs() - before


def tasks(bench: Bench) -> Iterator[Task]:
    """Each policy over the stock pipeline, both with compiled blocks; and recompilations.

    The blocks stay compiled.
    """
    least = LEAST * (1 + len(AIMS)) * bench.seconds(1) + COMPILING * (bench.device.type == "cuda")
    yield Task({"batch": 1, "backend": bench.settings.compiler}, partial(_rounds, bench), least)


def _rounds(bench: Bench) -> Iterator[Row]:
    backbone, settings = bench.loaded, bench.settings
    learned = fresh_module(backbone)
    every = methods(backbone, 1, settings.evaluations, learned)
    draw = {name: every[name] for name in (STOCK, *AIMS)}
    draw[STOCK]()
    eager = timed(backbone.device, draw[STOCK])
    torch._dynamo.reset()
    try:
        compile_blocks(backbone.pipe.transformer, settings.compiler)
        before = graphs()
        first = timed(backbone.device, draw[STOCK])
        yield {"method": STOCK, "eager_seconds": eager, "first_seconds": first}
        seconds = measure(draw, settings.rounds, settings.share(PART))
        compiled = float(np.median(seconds[STOCK]))
        yield {"method": STOCK, "compiled_seconds": compiled, "graphs": graphs() - before}
        for name, aim in AIMS.items():
            row = {"method": name, **compared(seconds[name], seconds[STOCK], aim)}
            yield {**row, "reached": row["low" if aim == 1 else "ratio"] <= aim}
        yield {"recompilations": recompilations(backbone, learned)}
    finally:
        torch._dynamo.reset()  # what is compiled holds on to the weights
