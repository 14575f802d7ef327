"""The one training loop that every stage shares: budget, rate schedule, bf16, resume."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

SAVE_SECONDS = 120
LOG_STEPS = 20


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def adamw(parameters: Any, lr: float, weight_decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW with the second moment's memory that suits short runs; fused on a GPU."""
    fused = torch.cuda.is_available()
    return torch.optim.AdamW(
        parameters, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95), fused=fused
    )


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: ``steps``, or as many as fit into ``seconds`` if they are given.

    Zero seconds leave what was trained as it is.
    """

    steps: int
    seconds: float | None = None


class _Clock:
    """How much of a budget is used up, and the time since something was done."""

    def __init__(self, progress: float, budget: Budget) -> None:
        self.resumed, self.budget, self.begun = progress, budget, time.monotonic()
        self.last = {"log": self.begun, "save": self.begun}

    def progress(self, step: int) -> float:
        if self.budget.seconds is None:
            return step / self.budget.steps
        share = (time.monotonic() - self.begun) / self.budget.seconds
        return min(1.0, self.resumed + (1 - self.resumed) * share)

    def passed(self, name: str) -> float:
        return time.monotonic() - self.last[name]

    def since(self, name: str) -> float:
        """Seconds since the last call, or since the beginning."""
        passed = self.passed(name)
        self.last[name] += passed
        return passed


class Draws(Dataset):
    """The batch of a step, drawn from a generator that is seeded by the step."""

    def __init__(self, draw: Callable[[int], Any]) -> None:
        self.draw = draw

    def __getitem__(self, step: int) -> Any:
        return self.draw(step)


def stream(draw: Callable[[int], Any], first: int, steps: int, workers: int) -> Iterator[Any]:
    """``draw(step)`` from ``first`` on, made ahead by ``workers`` processes if there are any."""
    loader = DataLoader(
        Draws(draw),
        batch_size=None,
        sampler=range(first, steps),  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="fork" if workers else None,  # closures need no pickling
    )
    return iter(loader)


@dataclass
class Run:
    """A training run in ``directory``: ``checkpoint.pt`` to resume from, ``log.jsonl`` to read.

    When the rate begins to fall, ``stable.pt`` is kept beside the checkpoint: `reopen` goes on from
    there, for longer.

    Bound by steps, the state of step n is a function of the settings alone: batches are drawn from
    generators seeded by (seed, step), so that an interrupted run and an uninterrupted one see the
    same data. Bound by seconds, the rate follows the share of the time that has passed, and a run
    that goes on does so from the share it had reached.

    Attributes:
        warmup: steps over which the rate rises.
        decay: share of the run over which it falls to zero.
        after_step: called with the step that was taken.
    """

    directory: Path
    modules: dict[str, nn.Module]
    optimizers: list[torch.optim.Optimizer]
    budget: Budget
    warmup: int = 50
    decay: float = 0.25
    clip: float = 1.0
    after_step: Callable[[int], None] | None = None
    workers: int = 0
    step: int = field(default=0, init=False)
    progress: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]
        if self._checkpoint.exists():
            state = torch.load(self._checkpoint, weights_only=True, map_location="cpu")
            for name, module in self.modules.items():
                module.load_state_dict(state["modules"][name])
            self.step, self.progress = state["step"], state["progress"]
            if not self.done:
                for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                    optimizer.load_state_dict(saved)

    @property
    def _checkpoint(self) -> Path:
        return self.directory / "checkpoint.pt"

    @property
    def done(self) -> bool:
        if self.budget.seconds is None:
            return self.progress >= 1 or self.step >= self.budget.steps
        return self.progress >= 1 or self.budget.seconds <= 0

    def train(
        self, loss_at: Callable[[Any], dict[str, Tensor]], draw: Callable[[int], Any]
    ) -> None:
        """Minimise ``loss_at(draw(step))["loss"]`` from the last checkpoint to the budget's end."""
        if self.done:
            return
        device = next(next(iter(self.modules.values())).parameters()).device
        most = self.budget.steps if self.budget.seconds is None else 10**9
        clock, first = _Clock(self.progress, self.budget), self.step + 1
        for batch in stream(draw, self.step, most, self.workers):
            with torch.autocast(device.type, torch.bfloat16), attention_on(device):
                losses = loss_at(batch)
            losses["loss"].backward()
            self._update()
            self.step += 1
            stable, self.progress = self._stable, clock.progress(self.step)
            if stable and not self._stable:
                self.save("stable.pt")
            if self.step % LOG_STEPS == 0 or self.step == first or self.done:
                self._log(losses, clock.since("log"))
            if clock.passed("save") > SAVE_SECONDS or self.done:
                self.save()
                clock.since("save")
            if self.done:
                break

    @property
    def _stable(self) -> bool:
        """Whether the rate has not begun to fall."""
        return self.progress < 1 - self.decay

    def _update(self) -> None:
        scale = rate_at(self.step, self.progress, self.warmup, self.decay)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * scale
        parameters = [p for o in self.optimizers for g in o.param_groups for p in g["params"]]
        nn.utils.clip_grad_norm_(parameters, self.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.after_step is not None:
            self.after_step(self.step)

    def _log(self, losses: dict[str, Tensor], seconds: float) -> None:
        row = {"step": self.step, "progress": round(self.progress, 4), "seconds": round(seconds, 1)}
        row |= {name: round(value.item(), 5) for name, value in losses.items()}
        if not all(map(torch.isfinite, losses.values())):
            raise FloatingPointError(
                f"{self.directory.name}: not finite at step {self.step}: {row}"
            )
        line = json.dumps(row)
        print(f"{self.directory.name}: {line}", flush=True)
        with (self.directory / "log.jsonl").open("a") as log:
            log.write(line + "\n")

    def save(self, name: str = "checkpoint.pt") -> None:
        """Replace the file; one of a run that is complete has no optimizer to go on with."""
        path = self.directory / name
        complete = self.progress >= 1
        state = {
            "step": self.step,
            "progress": self.progress,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": [] if complete else [each.state_dict() for each in self.optimizers],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)


def is_complete(directory: Path) -> bool:
    """Whether the run in ``directory`` was trained to its end."""
    path = directory / "checkpoint.pt"
    return path.exists() and torch.load(path, weights_only=True, mmap=True)["progress"] >= 1


def reopen(directory: Path) -> None:
    """Let a complete run go on from where its rate began to fall, with another budget.

    Raises:
        FileNotFoundError: the run has not come that far.
    """
    state = torch.load(directory / "stable.pt", weights_only=True, map_location="cpu")
    partial = directory / "checkpoint.partial"
    torch.save({**state, "progress": 0.0}, partial)
    os.replace(partial, directory / "checkpoint.pt")


def attention_on(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Attention by the fastest kernels of ``device``, while it is open.

    On a CPU the fused kernel's backward takes several times as long as plain products, in bf16 and
    for sequences as short as these.
    """
    return contextlib.nullcontext() if device.type == "cuda" else sdpa_kernel(SDPBackend.MATH)


def rate_at(step: int, progress: float, warmup: int, decay: float) -> float:
    """Share of the peak rate: linear warm-up over steps, flat, linear to zero at progress 1."""
    rise = (step + 1) / max(1, warmup)
    fall = (1 - progress) / max(1e-6, decay)
    return max(0.0, min(1.0, rise, fall))
