"""What the images of a batch are drawn with: a backbone's defaults, and what is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from asyncdiff_cli.engine.backbones.registry import BackboneEntry
from asyncdiff_cli.engine.policies.base import Policy
from asyncdiff_cli.engine.policies.given import FixedDeviation, ScheduledDeviation, Synchronous
from asyncdiff_cli.engine.policies.specs import load_learned, parse_policy, plain
from asyncdiff_cli.engine.prompts.lines import Options

ARGUMENTS = {
    "gamma": "gamma",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "negative": "negative_prompt",
}
"""Options, and the settings that they are as they stand."""


@dataclass(frozen=True)
class BatchSettings:
    """What the images of one batch share; named as the arguments of `sample`."""

    policy: Policy
    gamma: float
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    negative_prompt: str | None
    max_sequence_length: int | None
    share_first: bool = False


def default_policy(entry: BackboneEntry) -> str:
    """The line of the policy that a backbone is drawn with unless asked otherwise."""
    if entry.tpm:
        return "learned"
    return f"fixed:{plain(entry.deviation)}" if entry.deviation else "baseline"


def defaults(entry: BackboneEntry, size: int) -> BatchSettings:
    """What a backbone does unless asked otherwise."""
    return BatchSettings(
        policy=parse_policy(default_policy(entry), entry).policy,
        gamma=1.0,
        num_inference_steps=entry.num_inference_steps,
        guidance_scale=entry.guidance_scale,
        height=size,
        width=size,
        negative_prompt=None,
        max_sequence_length=entry.max_sequence_length,
    )


def resolve(options: Options, base: BatchSettings, entry: BackboneEntry) -> BatchSettings:
    """The options where there are any, else `base`."""
    changed: dict[str, Any] = {
        name: getattr(options, option)
        for option, name in ARGUMENTS.items()
        if getattr(options, option) is not None
    }
    if options.size is not None:
        changed["width"], changed["height"] = options.size
    if (policy := chosen_policy(options, entry)) is not None:
        changed["policy"] = policy
    return replace(base, **changed)


def chosen_policy(options: Options, entry: BackboneEntry) -> Policy | None:
    """The policy that is asked for; None where it is left to the backbone."""
    if options.policy is not None:
        return parse_policy(options.policy, entry).policy
    if options.deviation is not None:
        return _fixed(options.deviation)
    if options.schedule is not None:
        return ScheduledDeviation(options.schedule, options.bound or 1.0)
    return None if options.tpm is None else load_learned(options.tpm)


def _fixed(deviation: float) -> Policy:
    return FixedDeviation(deviation) if deviation else Synchronous()
