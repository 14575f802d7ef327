"""The Python API: load a backbone, choose a policy, sample; or attach to a diffusers pipeline."""

from asyncdiff_cli.engine.attach import Trace, attach
from asyncdiff_cli.engine.backbones import (
    REGISTRY,
    Backbone,
    BackboneEntry,
    backbone_from_pipeline,
    load_backbone,
)
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.policies import (
    FixedDeviation,
    Policy,
    ScheduledDeviation,
    StepState,
    Synchronous,
    policy_from_dict,
)
from asyncdiff_cli.engine.sampler import SampleResult, sample

__all__ = [
    "REGISTRY",
    "AsyncDiffError",
    "Backbone",
    "BackboneEntry",
    "FixedDeviation",
    "InputError",
    "Policy",
    "SampleResult",
    "ScheduledDeviation",
    "StepState",
    "Synchronous",
    "Trace",
    "attach",
    "backbone_from_pipeline",
    "load_backbone",
    "policy_from_dict",
    "sample",
]
