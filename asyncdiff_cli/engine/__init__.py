"""The Python API: load a backbone, choose a policy, sample or attach; and score what was drawn.

Its names are imported when they are first used, so that what needs no torch starts without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncdiff_cli.engine.backbones.adapters import ADAPTERS, Adapter, TextConditions
    from asyncdiff_cli.engine.backbones.backbone import (
        Backbone,
        backbone_from_pipeline,
        load_backbone,
    )
    from asyncdiff_cli.engine.backbones.registry import REGISTRY, BackboneEntry
    from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
    from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning, InputError
    from asyncdiff_cli.engine.policies.base import Policy, StepState
    from asyncdiff_cli.engine.policies.detail_boost import ModelDetailBoost, SamplerDetailBoost
    from asyncdiff_cli.engine.policies.detail_daemon import DetailDaemon
    from asyncdiff_cli.engine.policies.epsilon_scaling import EpsilonScaling
    from asyncdiff_cli.engine.policies.given import FixedDeviation, ScheduledDeviation, Synchronous
    from asyncdiff_cli.engine.policies.learned import LearnedDeviation, load_tpm
    from asyncdiff_cli.engine.policies.noise_shift import NoiseShift
    from asyncdiff_cli.engine.policies.per_image import EachPolicy
    from asyncdiff_cli.engine.policies.scaled_schedule import ScaledSchedule
    from asyncdiff_cli.engine.policies.schedule_file import Schedule
    from asyncdiff_cli.engine.policies.specs import parse_policy
    from asyncdiff_cli.engine.policies.spectral import SpectralDeviation
    from asyncdiff_cli.engine.policies.table import policy_from_dict
    from asyncdiff_cli.engine.policies.time_shift import TimeShift
    from asyncdiff_cli.engine.policies.tpm import TimestepPredictionModule
    from asyncdiff_cli.engine.policies.transfer import transfer
    from asyncdiff_cli.engine.policies.velocity_scale import Combined, VelocityScale
    from asyncdiff_cli.engine.rewards import load_reward, score
    from asyncdiff_cli.engine.rewards.base import Reward
    from asyncdiff_cli.engine.rewards.composite import composite
    from asyncdiff_cli.engine.sampling.async_scheduler import AsyncFlowMatchEulerScheduler
    from asyncdiff_cli.engine.sampling.attach import Trace, attach
    from asyncdiff_cli.engine.sampling.sample import SampleResult, sample
    from asyncdiff_cli.engine.schedules.calibrated import calibrated_schedule

__all__ = [
    "ADAPTERS",
    "REGISTRY",
    "Adapter",
    "AsyncDiffError",
    "AsyncDiffWarning",
    "AsyncFlowMatchEulerScheduler",
    "Backbone",
    "BackboneEntry",
    "Combined",
    "DetailDaemon",
    "EachPolicy",
    "EpsilonScaling",
    "FixedDeviation",
    "InputError",
    "LearnedDeviation",
    "ModelDetailBoost",
    "NoiseShift",
    "Policy",
    "Reward",
    "SampleResult",
    "SamplerDetailBoost",
    "ScaledSchedule",
    "Schedule",
    "ScheduledDeviation",
    "SpectralDeviation",
    "StepState",
    "Synchronous",
    "TextConditions",
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
    "make_scheduler",
    "parse_policy",
    "policy_from_dict",
    "sample",
    "score",
    "transfer",
]

_MODULES = {
    "ADAPTERS": "backbones.adapters",
    "REGISTRY": "backbones.registry",
    "Adapter": "backbones.adapters",
    "AsyncDiffError": "errors",
    "AsyncDiffWarning": "errors",
    "AsyncFlowMatchEulerScheduler": "sampling.async_scheduler",
    "Backbone": "backbones.backbone",
    "BackboneEntry": "backbones.registry",
    "Combined": "policies.velocity_scale",
    "DetailDaemon": "policies.detail_daemon",
    "EachPolicy": "policies.per_image",
    "EpsilonScaling": "policies.epsilon_scaling",
    "FixedDeviation": "policies.given",
    "InputError": "errors",
    "LearnedDeviation": "policies.learned",
    "ModelDetailBoost": "policies.detail_boost",
    "NoiseShift": "policies.noise_shift",
    "Policy": "policies.base",
    "Reward": "rewards.base",
    "SampleResult": "sampling.sample",
    "SamplerDetailBoost": "policies.detail_boost",
    "ScaledSchedule": "policies.scaled_schedule",
    "Schedule": "policies.schedule_file",
    "ScheduledDeviation": "policies.given",
    "SpectralDeviation": "policies.spectral",
    "StepState": "policies.base",
    "Synchronous": "policies.given",
    "TextConditions": "backbones.adapters",
    "TimeShift": "policies.time_shift",
    "TimestepPredictionModule": "policies.tpm",
    "Trace": "sampling.attach",
    "VelocityScale": "policies.velocity_scale",
    "attach": "sampling.attach",
    "backbone_from_pipeline": "backbones.backbone",
    "calibrated_schedule": "schedules.calibrated",
    "composite": "rewards.composite",
    "load_backbone": "backbones.backbone",
    "load_reward": "rewards",
    "load_tpm": "policies.learned",
    "make_scheduler": "backbones.schedulers",
    "parse_policy": "policies.specs",
    "policy_from_dict": "policies.table",
    "sample": "sampling.sample",
    "score": "rewards",
    "transfer": "policies.transfer",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
