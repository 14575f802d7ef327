"""What the libraries log while weights are read, as warnings and errors."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from asyncdiff_cli.engine.errors import AsyncDiffWarning
from asyncdiff_cli.engine.text import one_line

LOGGERS = (
    "transformers.modeling_utils",
    "diffusers.models.modeling_utils",
    "diffusers.configuration_utils",
)
REPORT_ROW = re.compile(r"^(\S+)\s*\|\W*(?:\[\d+m)?(MISSING|UNEXPECTED)", re.MULTILINE)
"""A row of transformers' report on a model's weights; several layers may share one."""
UNUSED_REPORT = re.compile(r"model checkpoint at (\S+) were not used .*\['([^,']+)", re.DOTALL)
"""The same in diffusers' report."""
UNREAD = ("lm_head", "position_ids")
"""Parts of the names of weights that no pipeline reads: a language model's head, and constants."""


@contextmanager
def heeded() -> Iterator[None]:
    """Heed within the block what transformers and diffusers log about weights and configurations.

    Raises:
        ValueError: for missing weights, in whose place transformers puts random ones.
    """
    records = _Records()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING - 1)  # at WARNING transformers reports on its sharding
        logger.propagate = False
        logger.addHandler(records)
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(records)
            logger.setLevel(level)
            logger.propagate = propagate
    for text in records.texts:
        _heed(text)


class _Records(logging.Handler):
    """Keeps the messages."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _heed(text: str) -> None:
    rows = [
        (key, kind) for key, kind in REPORT_ROW.findall(text) if not any(n in key for n in UNREAD)
    ]
    missing = [key for key, kind in rows if kind == "MISSING"]
    if missing:
        raise ValueError(f"weights are missing, such as {missing[0]}")
    unexpected = [key for key, _ in rows]
    if found := UNUSED_REPORT.search(text):
        unexpected = [found[2]]
    if unexpected:
        _warn(f"weights of the model are left out, since it has no layer for them: {unexpected[0]}")
    elif text.startswith("The config attributes"):
        _warn(one_line(text))


def _warn(text: str) -> None:
    warnings.warn(text, AsyncDiffWarning, stacklevel=2)
