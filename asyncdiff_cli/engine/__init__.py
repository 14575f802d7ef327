"""The Python API: load a backbone, choose a policy, sample or attach; and score what was drawn.

Its names are imported when they are first used, so that what needs no torch starts without it.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncdiff_cli.engine.async_scheduler import AsyncFlowMatchEulerScheduler
    from asyncdiff_cli.engine.attach import Trace, attach
    from asyncdiff_cli.engine.backbones import (
        Backbone,
        backbone_from_pipeline,
        load_backbone,
    )
    from asyncdiff_cli.engine.calibrated import calibrated_schedule
    from asyncdiff_cli.engine.each import EachPolicy
    from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning, InputError
    from asyncdiff_cli.engine.learned import LearnedDeviation, load_tpm
    from asyncdiff_cli.engine.policies import (
        FixedDeviation,
        Policy,
        ScheduledDeviation,
        StepState,
        Synchronous,
        policy_from_dict,
    )
    from asyncdiff_cli.engine.policy_specs import parse_policy
    from asyncdiff_cli.engine.registry import REGISTRY, BackboneEntry
    from asyncdiff_cli.engine.rewards import load_reward, score
    from asyncdiff_cli.engine.rewards.base import Reward
    from asyncdiff_cli.engine.rewards.composite import composite
    from asyncdiff_cli.engine.rivals import Combined, DetailDaemon, TimeShift, VelocityScale
    from asyncdiff_cli.engine.sampler import SampleResult, sample
    from asyncdiff_cli.engine.schedule_file import Schedule
    from asyncdiff_cli.engine.spectral import SpectralDeviation
    from asyncdiff_cli.engine.tpm import TimestepPredictionModule
    from asyncdiff_cli.engine.transfer import transfer

__all__ = [
    "REGISTRY",
    "AsyncDiffError",
    "AsyncDiffWarning",
    "AsyncFlowMatchEulerScheduler",
    "Backbone",
    "BackboneEntry",
    "Combined",
    "DetailDaemon",
    "EachPolicy",
    "FixedDeviation",
    "InputError",
    "LearnedDeviation",
    "Policy",
    "Reward",
    "SampleResult",
    "Schedule",
    "ScheduledDeviation",
    "SpectralDeviation",
    "StepState",
    "Synchronous",
    "TimeShift",
    "TimestepPredictionModule",
    "Trace",
    "VelocityScale",
    "attach",
    "backbone_from_pipeline",
    "calibrated_schedule",
    "composite",
    "load_backbone",
    "load_reward",
    "load_tpm",
    "parse_policy",
    "policy_from_dict",
    "sample",
    "score",
    "transfer",
]

_MODULES = (
    *(
        "errors",
        "registry",
        "policy_specs",
        "rewards",
        "policies",
        "rivals",
        "spectral",
        "schedule_file",
        "each",
    ),
    *("transfer", "async_scheduler"),
    *(
        "backbones",
        "sampler",
        "attach",
        "rewards.base",
        "rewards.composite",
        "tpm",
        "learned",
        "calibrated",
    ),
)
"""Where the names are, lightest first."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            names = vars(importlib.import_module(f"{__name__}.{module}"))
            if name in names and not isinstance(names[name], ModuleType):
                return names[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Engine(ModuleType):
    """Importing a submodule binds its name here, which must not hide the function `attach`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Engine
