"""What of a request and its model can be refused before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.compatibility import check_asked, check_known_size
from asyncdiff_cli.engine.backbones.control_nets import check_control_net
from asyncdiff_cli.engine.backbones.registry import (
    EDITING_FAMILIES,
    REGISTRY,
    provisional_entry,
)
from asyncdiff_cli.engine.drawing.input_image import (
    NO_IMAGE,
    InputImage,
    check_controlled,
    check_drawn_from,
)
from asyncdiff_cli.engine.drawing.request import Request
from asyncdiff_cli.engine.drawing.settings import controlled
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import check_directory
from asyncdiff_cli.engine.policies.specs import check_policy_of, read_policy
from asyncdiff_cli.engine.prompts.lines import Options


def check_request(request: Request, choice: ModelChoice, out: Path) -> None:
    """Check a request for images that go to a directory; reads the prompt file, or the source.

    Raises:
        InputError, AsyncDiffError: for all that names and this disk tell.
    """
    check_directory(out)
    choice, wanted = _wanted(request, choice)
    entry = provisional_entry(choice.name)
    if request.source is None:
        check_images(wanted, choice)
    for options in wanted:
        if options.size is not None:
            check_known_size(choice, *reversed(options.size))
        if options.policy is not None:
            check_policy_of(read_policy(options.policy), entry)


def check_images(wanted: Sequence[Options], choice: ModelChoice) -> None:
    """Check what is drawn from: pictures, a strength and a control net where they can be.

    Raises:
        InputError: for what is no picture or cannot be together.
    """
    known = REGISTRY.get(choice.name)
    edits = known is not None and known.family in EDITING_FAMILIES
    check_drawn_from([options.image for options in wanted], choice.scheduler)
    check_controlled([options.controlnet for options in wanted], [o.image for o in wanted])
    for control in map(controlled, wanted):
        if control is not None:
            check_control_net(control.net, known.family if known else None)
    for image, strength in {(options.image, options.strength) for options in wanted}:
        if image is not None:
            InputImage.of(image, strength=strength).with_strength(edits)
        elif strength is not None:
            raise InputError(NO_IMAGE)


def _wanted(request: Request, choice: ModelChoice) -> tuple[ModelChoice, list[Options]]:
    """The model that draws, and the options that images are drawn with."""
    if request.source is None:
        check_asked(choice := choice.changed(backbone=choice.name))
        return choice, list(dict.fromkeys(picture.options for picture in request.pictures))
    from asyncdiff_cli.engine.drawing.source_image import read_source

    return read_source(request, choice)[1], [request]
