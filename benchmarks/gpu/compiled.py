"""The compiled transformer: ours beside the stock pipeline with the same, and recompilations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch._dynamo.utils import counters

from asyncdiff_cli.engine import Backbone, FixedDeviation, Policy, Synchronous, sample
from asyncdiff_cli.engine.setup import compile_blocks
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.speed import LEARNED_AIM, compared, fresh_module, timed
from benchmarks.overhead import STOCK, measure, methods

AIMS = {"sample, synchronous": 1.0, "sample, fixed": 1.0, "sample, learned": LEARNED_AIM}
"""Times the compiled stock pipeline's seconds: 1 is no slower, as far as the interval can tell."""
GAMMAS = (0.0, 0.5, 1.5)


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


def measure_compiled(backbone: Backbone, settings: Settings) -> dict[str, Any]:
    """Seconds of each policy over the stock pipeline's, both with compiled blocks, batch 1."""
    learned = fresh_module(backbone)
    every = methods(backbone, 1, settings.evaluations, learned)
    draw = {name: every[name] for name in (STOCK, *AIMS)}
    draw[STOCK]()
    eager = timed(backbone.device, draw[STOCK])
    torch._dynamo.reset()
    compile_blocks(backbone.pipe.transformer, settings.compiler)
    before = graphs()
    first = timed(backbone.device, draw[STOCK])
    seconds = measure(draw, settings.rounds, settings.share(0.1))
    rows = []
    for name, aim in AIMS.items():
        row = {"batch": 1, "method": name, **compared(seconds[name], seconds[STOCK], aim)}
        rows.append({**row, "reached": row["low" if aim == 1 else "ratio"] <= aim})
    found = {
        "backend": settings.compiler,
        "first_seconds": first,
        "eager_seconds": eager,
        "compiled_seconds": float(np.median(seconds[STOCK])),
        "graphs": graphs() - before,
        "recompilations": recompilations(backbone, learned),
        "rows": rows,
    }
    torch._dynamo.reset()  # what is compiled holds on to the weights
    return found
