"""What the images of a batch are drawn with: a backbone's defaults, and what is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncdiff_cli.engine.backbones.registry import BASELINE, BackboneEntry
from asyncdiff_cli.engine.drawing.input_image import (
    NO_CONTROL_IMAGE,
    NO_IMAGE,
    NO_NET,
    ControlImage,
    InputImage,
)
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.policies.specs import PolicySpec, make_policy, read_policy
from asyncdiff_cli.engine.policies.table import policy_from_dict
from asyncdiff_cli.engine.prompts.lines import Options

if TYPE_CHECKING:
    from asyncdiff_cli.engine.policies.base import Policy

ARGUMENTS = {
    "gamma": "gamma",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "negative": "negative_prompt",
}
"""Options, and the settings that they are as they stand."""
FROM_IMAGES = "image", "control"
"""The settings that are images."""
_NO_DEVIATION = PolicySpec(BASELINE)
"""No deviation."""


@dataclass(frozen=True)
class BatchSettings:
    """What the images of one batch share; named as the arguments of `sample`, but for
    `image` and `control`."""

    policy: Policy
    gamma: float
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    negative_prompt: str | None
    max_sequence_length: int | None
    share_first: int = False
    image: InputImage | None = None
    """What is drawn from, in place of noise alone."""
    control: ControlImage | None = None
    """What a control net is shown, and the net."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings that are arguments of `sample`."""
        return {name: value for name, value in vars(self).items() if name not in FROM_IMAGES}


def asked_policy(options: Options) -> PolicySpec | None:
    """The policy that is asked for, as a line that was read; None where it is left open."""
    if options.policy is not None:
        return read_policy(options.policy)
    if options.deviation is not None:
        return PolicySpec("fixed", (options.deviation,)) if options.deviation else _NO_DEVIATION
    if options.schedule is not None:
        return PolicySpec("schedule", options.schedule)
    return None if options.tpm is None else PolicySpec("learned", source=options.tpm)


def chosen_policy(options: Options, entry: BackboneEntry) -> Policy | None:
    """The policy that is asked for; None where it is left to the backbone."""
    spec = asked_policy(options)
    if options.schedule is not None and options.bound is not None:
        from asyncdiff_cli.engine.policies.given import ScheduledDeviation

        return ScheduledDeviation(options.schedule, options.bound)
    return None if spec is None else make_policy(spec, entry)


@dataclass(frozen=True)
class ToldPolicy:
    """A policy that is not made, which takes torch, but told of."""

    record: str
    """What is said of it, as JSON."""

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.record)
        return found

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> ToldPolicy:
        return cls(json.dumps(record))

    @classmethod
    def asked(cls, options: Options, entry: BackboneEntry) -> ToldPolicy | None:
        """What is asked for: its name, and the line that asks for it."""
        spec = asked_policy(options)
        if spec == _NO_DEVIATION:
            return cls.from_dict({"name": "synchronous"})  # which is all that its record says
        return None if spec is None else cls.from_dict({"name": spec.name, "line": spec.label})


class PolicyMaker(NamedTuple):
    """How a plan comes by its policies."""

    asked: Callable[[Options, BackboneEntry], Any]
    """The policy of options, or None."""
    recorded: Callable[[dict[str, Any]], Any]
    """The policy of a record."""


MADE = PolicyMaker(chosen_policy, policy_from_dict)
TOLD = PolicyMaker(ToldPolicy.asked, ToldPolicy.from_dict)
"""For a plan that is not drawn."""


def defaults(entry: BackboneEntry, size: int, policies: PolicyMaker = MADE) -> BatchSettings:
    """What a backbone does unless asked otherwise."""
    return BatchSettings(
        policy=policies.asked(Options(policy=entry.policy), entry),
        gamma=1.0,
        num_inference_steps=entry.num_inference_steps,
        guidance_scale=entry.guidance_scale,
        height=size,
        width=size,
        negative_prompt=None,
        max_sequence_length=entry.max_sequence_length,
    )


def resolve(
    options: Options, base: BatchSettings, entry: BackboneEntry, policies: PolicyMaker = MADE
) -> BatchSettings:
    """The options where there are any, else `base`.

    Raises:
        InputError: as `RecordedImage.of`, for a strength without an image, and as `controlled`.
    """
    changed: dict[str, Any] = {
        name: getattr(options, option)
        for option, name in ARGUMENTS.items()
        if getattr(options, option) is not None
    }
    if options.size is not None:
        changed["width"], changed["height"] = options.size
    if (policy := policies.asked(options, entry)) is not None:
        changed["policy"] = policy
    if options.image is not None or options.strength is not None:
        changed["image"] = _input_image(options, base.image)
    if (control := controlled(options, base.control)) is not None:
        changed["control"] = control
    return replace(base, **changed)


def _input_image(options: Options, base: InputImage | None) -> InputImage:
    """The image that is drawn from; an image that is drawn again keeps its own."""
    if base is None and options.image is not None:
        return InputImage.of(options.image, strength=options.strength)
    if base is None:
        raise InputError(NO_IMAGE)
    kept = base.at(options.image)
    changed = {} if options.strength is None else {"strength": options.strength}
    return kept.model_copy(update=changed)


def controlled(options: Options, base: ControlImage | None = None) -> ControlImage | None:
    """The image that a control net is shown, with the net; `base` where none is asked for.

    Raises:
        InputError: as `RecordedImage.of`, and for a net without an image, or the reverse.
    """
    place, image, scale = options.controlnet, options.control_image, options.control_scale
    net = str(expanded(place).absolute()) if place and expanded(place).is_dir() else place
    changed = {} if scale is None else {"scale": scale}
    if base is not None:
        return base.at(image, net).model_copy(update=changed)
    if net is not None and image is not None:
        return ControlImage.of(image, net=net, **changed)
    if net is not None or image is not None or changed:
        raise InputError(NO_NET if net is None else NO_CONTROL_IMAGE)
    return None
