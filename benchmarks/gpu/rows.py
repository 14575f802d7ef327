"""What is measured, row by row: each is kept as soon as it is known, and what fails says why."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.settings import OverBudgetError, Settings

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Rows that are measured together."""

    key: Row
    """What they are of; a part of each."""
    measure: Callable[[], Iterable[Row]]
    seconds: float = 0.0
    """What it takes at least, as far as that is known."""


@dataclass
class Journal:
    """The rows so far. A run that is killed loses no more than the one in progress."""

    file: Path | None = None
    """JSON lines, to which more are added; None for none."""
    tell: Callable[[Row], None] = lambda _: None
    """Told of each row."""
    rows: list[Row] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a row could not be measured for another reason than time."""
        return any("failed" in row for row in self.rows)

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append(row)
        self.tell(row)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def perform(tasks: Iterable[Task], section: Row, journal: Journal, settings: Settings) -> None:
    """Measure a section, one task after the other, whichever of them fail."""
    with _kept(section, journal):
        for task in tasks:
            key, start = {**section, **task.key}, time.perf_counter()
            with _kept(key, journal):
                settings.check_left(task.seconds)
                for row in task.measure():
                    took = round(time.perf_counter() - start, 2)
                    journal.add({**key, **row, "took_seconds": took})


def reason(error: Exception) -> str:
    """What went wrong, in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def _kept(key: Row, journal: Journal) -> Iterator[None]:
    """Make a row of what is raised within the block."""
    try:
        yield
        return
    except OverBudgetError as error:
        journal.add({**key, "skipped": str(error)})
    except Exception as error:
        traceback.print_exc()
        journal.add({**key, "failed": reason(error)})
    gc.collect()  # what the traceback held on to is free by now
    torch.cuda.empty_cache()
