"""Set-level metrics: how far a set of pictures is from a reference set. One value per policy.

A metric keeps the features of every picture, so that it can be computed again without its model. It
is written as the mean of one term per picture, as a reward is: the influence function of Hampel
(1974) linearises it. So the rewards' paired differences and bootstrap intervals are its own too.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from asyncdiff_cli.engine.checks import check_choice
from asyncdiff_cli.engine.errors import InputError

if TYPE_CHECKING:
    from asyncdiff_cli.engine.evaluation.set_metrics.base import SetMetric

_CLASSES = {
    "cmmd": ("cmmd", "CMMD"),
    "fid": ("fid", "FID"),
    "fid_judge": ("fid_judge", "FIDJudge"),
    "spectrum": ("spectrum", "RadialSpectrum"),
}
NAMES = tuple(_CLASSES)
SHIPPED = ("fid_judge", "spectrum")
"""Metrics of the reference that comes with mini's judge."""


def get(name: str) -> type[SetMetric]:
    """The class of a set metric.

    Raises:
        InputError: for an unknown name, with the nearest known one.
    """
    check_choice("set metric", name, NAMES)
    module, attribute = _CLASSES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def check_set_metrics(names: Sequence[str]) -> None:
    """Every name is known, there once, and its library is installed.

    Raises:
        InputError: for one that is not.
    """
    for name in names:
        check_choice("set metric", name, NAMES)
    if len(set(names)) < len(names):
        raise InputError(f"--set-metrics names {max(names, key=list(names).count)} twice")
    if "fid" in names and find_spec("torch_fidelity") is None:
        raise InputError("fid needs torch-fidelity: pip install 'asyncdiff-cli[fid]'")
