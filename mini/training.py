"""The one training loop that every stage shares: rate schedule, bf16 autocast, resume."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

SAVE_SECONDS = 120
LOG_STEPS = 20


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class Run:
    """A training run in ``directory``: ``checkpoint.pt`` to resume from, ``log.jsonl`` to read.

    The state of step n is a function of the settings alone: batches are drawn from generators
    seeded by (seed, step), so that an interrupted run and an uninterrupted one see the same data.
    """

    directory: Path
    modules: dict[str, nn.Module]
    optimizers: list[torch.optim.Optimizer]
    steps: int
    warmup: int = 50
    decay: float = 0.25
    clip: float = 1.0
    after_step: Callable[[], None] | None = None
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]
        if self._checkpoint.exists():
            state = torch.load(self._checkpoint, weights_only=True, map_location="cpu")
            for name, module in self.modules.items():
                module.load_state_dict(state["modules"][name])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step = state["step"]

    @property
    def _checkpoint(self) -> Path:
        return self.directory / "checkpoint.pt"

    def train(self, loss_at: Callable[[int], dict[str, Tensor]]) -> None:
        """Minimise ``loss_at(step)["loss"]`` from the last checkpoint to the last step."""
        saved = logged = time.monotonic()
        device = next(next(iter(self.modules.values())).parameters()).device
        while self.step < self.steps:
            with torch.autocast(device.type, torch.bfloat16):
                losses = loss_at(self.step)
            losses["loss"].backward()
            self._update()
            self.step += 1
            if not torch.isfinite(losses["loss"]):
                raise FloatingPointError(
                    f"{self.directory.name}: loss is {losses['loss']} at step {self.step}"
                )
            if self.step % LOG_STEPS == 0 or self.step == self.steps:
                now = time.monotonic()
                self._log(losses, seconds=now - logged)
                logged = now
            if time.monotonic() - saved > SAVE_SECONDS or self.step == self.steps:
                self.save()
                saved = time.monotonic()

    def _update(self) -> None:
        scale = rate_at(self.step, self.steps, self.warmup, self.decay)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * scale
        parameters = [p for o in self.optimizers for g in o.param_groups for p in g["params"]]
        nn.utils.clip_grad_norm_(parameters, self.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.after_step is not None:
            self.after_step()

    def _log(self, losses: dict[str, Tensor], seconds: float) -> None:
        row = {"step": self.step, "seconds": round(seconds, 1)}
        row |= {name: round(value.item(), 5) for name, value in losses.items()}
        line = json.dumps(row)
        print(f"{self.directory.name}: {line}", flush=True)
        with (self.directory / "log.jsonl").open("a") as log:
            log.write(line + "\n")

    def save(self) -> None:
        state = {
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self._checkpoint)


def rate_at(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak rate at ``step``: linear warm-up, flat, linear to zero over ``decay``."""
    rise = (step + 1) / max(1, min(warmup, steps))
    fall = (steps - step) / max(1.0, decay * steps)
    return min(1.0, rise, fall)
