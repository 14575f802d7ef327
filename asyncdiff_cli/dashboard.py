"""The live view of a training: what it was last told, as something that rich can print."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asyncdiff_cli.engine.text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

BARS = "▁▂▃▄▅▆▇█"
WINDOW = 20
"""Iterations that the remaining time is estimated from."""


class Dashboard:
    """Keeps the last iteration and evaluation.

    Args:
        total: iterations of the run.
        done: those that were complete when it started.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done
        self._last: Mapping[str, Any] = {}
        self._held_out: Mapping[str, Any] = {}
        self._warning = ""
        self._seconds: deque[float] = deque(maxlen=WINDOW)

    def updated(self, kind: str, values: Mapping[str, Any]) -> RenderableType:
        """The view after one more event."""
        if kind == "iteration":
            self._last, self.done = values, values["iteration"]
            self._seconds.append(values["seconds"])
        elif kind == "evaluation":
            self._held_out = values
        else:
            self._warning = values["warning"]
        return self._view()

    @property
    def remaining(self) -> float | None:
        """Seconds to the last iteration, by the recent ones; evaluations are not counted."""
        if not self._seconds:
            return None
        return (self.total - self.done) * sum(self._seconds) / len(self._seconds)

    def _view(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        lines: list[RenderableType] = [Text(self._head())]
        if self._last:
            lines += [self._rewards(), Text(self._policy()), Text(self._time())]
        if self._warning:
            lines.append(Text(visible(f"warning: {self._warning}"), style="yellow"))
        return Group(*lines)

    def _head(self) -> str:
        eta = "" if self.remaining is None else f", {duration(self.remaining)} left"
        rate = f", {self._last['images_per_second']:.1f} images/s" if self._last else ""
        return f"iteration {self.done} of {self.total}{rate}{eta}"

    def _rewards(self) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in ("reward", "mean", "in groups ±", "z", "held out", "against baseline, 95 %"):
            table.add_column(column, justify="left" if column == "reward" else "right")
        names = list(self._last["rewards"])
        known = self._held_out.get("held_out", {})
        for name in [*names, *(n for n in known if n not in names)]:
            own = self._last["rewards"].get(name, {})
            cells = (f"{own[k]:.4f}" if k in own else "" for k in ("raw", "std", "z"))
            table.add_row(name, *cells, *_held_out_cells(known.get(name)))
        return table

    def _policy(self) -> str:
        values = self._last
        return (
            f"deviation {bars(values['deviation']['mean'])}   entropy {values['entropy']:.3f}"
            f"   KL {values['approximate_kl']:.1e}   clipped {values['clip_fraction']:.0%}"
            f"   gradient {values['grad_norm']:.2g}"
        )

    def _time(self) -> str:
        return "time " + "   ".join(f"{n} {s:.0%}" for n, s in self._last["shares"].items())


def _held_out_cells(found: Any) -> tuple[str, str]:
    if not isinstance(found, Mapping):
        return ("", "") if found is None else (f"{found:.4f}", "")
    interval = f"[{found['low']:+.4f}, {found['high']:+.4f}]"
    return f"{found['mean']:.4f}", f"{found['difference']:+.4f} {interval}"


def bars(values: Sequence[float], bound: float = 1.0) -> str:
    """Values in [-bound, bound] as a row of small bars, between its first and its last number."""
    places = (round((v + bound) / (2 * bound) * (len(BARS) - 1)) for v in values)
    row = "".join(BARS[min(max(place, 0), len(BARS) - 1)] for place in places)
    return f"{values[0]:+.2f} {row} {values[-1]:+.2f}"


def duration(seconds: float) -> str:
    """A duration such as 2 h 05 min, 4 min 10 s, 8 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def summary(kind: str, values: Mapping[str, Any], total: int) -> str:
    """One event as one line, for a log."""
    head = f"iteration {values['iteration']} of {total}"
    if kind == "iteration":
        rewards = ", ".join(f"{name} {own['raw']:.4f}" for name, own in values["rewards"].items())
        return (
            f"{head}: {rewards}; deviation {bars(values['deviation']['mean'])};"
            f" {values['images_per_second']:.2f} images/s"
        )
    scores = ", ".join(
        f"{name} {' '.join(_held_out_cells(own)).strip()}"
        for name, own in values["held_out"].items()
    )
    return f"{head}, held out: {scores}"
