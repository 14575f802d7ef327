"""What of a request and its model can be refused before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.compatibility import check_asked, check_known_size
from asyncdiff_cli.engine.backbones.registry import provisional_entry
from asyncdiff_cli.engine.drawing.request import Request
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
    for options in wanted:
        if options.size is not None:
            check_known_size(choice, *reversed(options.size))
        if options.policy is not None:
            check_policy_of(read_policy(options.policy), entry)


def _wanted(request: Request, choice: ModelChoice) -> tuple[ModelChoice, list[Options]]:
    """The model that draws, and the options that images are drawn with."""
    if request.source is None:
        check_asked(choice := choice.changed(backbone=choice.name))
        return choice, list(dict.fromkeys(picture.options for picture in request.pictures))
    from asyncdiff_cli.engine.drawing.source_image import read_source

    return read_source(request, choice)[1], [request]
