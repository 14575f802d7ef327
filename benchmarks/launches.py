"""What a step asks of a GPU, without one: operations, and reads that wait for it.

    python -m benchmarks.launches [--json]

At one image a step of a large model is bound by how fast operations are asked for, so that each of
them counts, whatever it computes. Counted on tensors without data, at full size: the stock loop,
and the same with a fixed and a learned deviation. An operation is a call of torch that makes or
changes a tensor, which is about a kernel; a wait is a number that is read of the GPU, or a copy
to or from it that is not asynchronous.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import typer
from rich.table import Table
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asyncdiff_cli import render
from asyncdiff_cli.engine import REGISTRY, FixedDeviation, LearnedDeviation, Policy
from asyncdiff_cli.engine.backbones.adapters import Adapter, Guidance
from asyncdiff_cli.engine.backbones.memory.hollow import empty_adapter
from asyncdiff_cli.engine.backbones.memory.tracing import Work, empty_conditions, without_data
from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
from asyncdiff_cli.engine.sampling.loop import integrate
from benchmarks import options
from benchmarks.gpu.architecture import write_published

CUDA = torch.device("cuda")
STEPS = 4
STEP = 2
"""The one of them that is reported: neither what is made once a run nor the end is in it."""
METHODS = ("stock", "fixed", "learned")
FIXED = FixedDeviation(0.5)

aten = torch.ops.aten


@dataclass(frozen=True)
class Counts:
    """What was asked for so far."""

    operations: int = 0
    waits: int = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.operations - other.operations, self.waits - other.waits)


class Launches(TorchDispatchMode):
    """Counts, while entered, what is asked of a device; numbers that are read of it are 0."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func is aten._local_scalar_dense.default:
            self._add(waits=int(given[0].is_cuda))
            return not given[0].is_cuda  # what has come to the CPU are checks that hold
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        known = {tensor.untyped_storage()._cdata for tensor in given}
        new = [tensor for tensor in made if tensor.untyped_storage()._cdata not in known]
        places = {tensor.device.type for tensor in (*given, *made) if tensor.ndim or tensor.is_cuda}
        if func in (aten._to_copy.default, aten.copy_.default) and len(places) > 1:
            self._add(waits=int(not kwargs.get("non_blocking", False)))
        if "cuda" in places and (new or func._schema.is_mutable):
            self._add(operations=1)
        return result

    def _add(self, operations: int = 0, waits: int = 0) -> None:
        now = self.counts
        self.counts = Counts(now.operations + operations, now.waits + waits)


@dataclass
class Run:
    """A run without data, of which `count` tells what a step asks for."""

    adapter: Adapter
    work: Work

    def count(self, policy: Policy | None) -> Counts:
        """A step's, with a policy or, for None, as the stock pipeline takes it."""
        adapter, work, pipe = self.adapter, self.work, self.adapter.pipe
        guidance, size = Guidance(work.guidance, work.guidance), (work.height, work.width)
        text = empty_conditions(adapter, work, adapter.does_cfg(guidance, work.negative))
        latents = adapter.prepare_latents((work.batch, *size), text.prompt_embeds.dtype, None, None)
        self._set_timesteps(latents)
        denoise = adapter.denoiser(text, guidance, *size)
        with torch.device("cpu"), Launches() as launches, adapter.conditioning_time() as time:
            marks = [launches.counts]

            def mark(*_: object) -> None:
                marks.append(launches.counts)

            def velocity(x: Any, timestep: Any, sigma: Any, cond_sigma: Any) -> Any:
                time.set(sigma, cond_sigma)
                return denoise(x, timestep)

            if policy is None:
                self._stock(denoise, latents, mark)
            else:
                token_grid = adapter.token_grid(*size)
                integrate(velocity, pipe.scheduler, latents, policy, 1.0, text, mark, token_grid)
        return marks[STEP + 1] - marks[STEP]

    def _set_timesteps(self, latents: torch.Tensor) -> None:
        scheduler = self.adapter.pipe.scheduler
        with unset_fake_temporarily(), torch.device("cpu"):
            self.adapter.set_timesteps(STEPS, torch.empty(latents.shape, device="cpu"))
        scheduler.sigmas = torch.empty(len(scheduler.sigmas), device=CUDA)
        scheduler.timesteps = torch.empty(len(scheduler.timesteps), device=CUDA)

    def _stock(
        self, denoise: Callable[..., Any], latents: torch.Tensor, mark: Callable[[], None]
    ) -> None:
        scheduler = self.adapter.pipe.scheduler
        scheduler.set_begin_index(0)
        for timestep in scheduler.timesteps:
            velocity = denoise(latents, timestep)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            mark()


def rows(directory: Path, dtype: torch.dtype, work: Work) -> dict[str, Counts]:
    """What a step of each method asks for, of the pipeline whose configuration is there."""
    with without_data(CUDA):
        adapter = empty_adapter(directory, dtype)
        module = TimestepPredictionModule(**adapter.channels)
        policies = {"stock": None, "fixed": FIXED, "learned": LearnedDeviation(module)}
        return {name: Run(adapter, work).count(policy) for name, policy in policies.items()}


def main(
    batch: options.Batch = 1,
    size: options.Size = 512,
    json: options.Json = False,
) -> None:
    """Count what a step of both backbones asks of a GPU in fp16."""
    render.quiet_libraries()
    found = {}
    for name in ("sd35", "flux"):
        work = Work(batch, size, size, REGISTRY[name].guidance_scale)
        with TemporaryDirectory() as directory:
            write_published(name, Path(directory))
            found[name] = rows(Path(directory), torch.float16, work)
    if json:
        render.as_json({n: {m: vars(c) for m, c in own.items()} for n, own in found.items()})
        return
    table = Table("backbone", "method", "operations a step", "waits a step")
    for name, own in found.items():
        for method, counts in own.items():
            table.add_row(name, method, f"{counts.operations:,}", str(counts.waits))
    render.tables([table])


if __name__ == "__main__":
    typer.run(main)
