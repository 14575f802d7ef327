"""What a user asks to have drawn, checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.fields import (
    MAX_SEED,
    Count,
    Numbers,
    Prompt,
    no_switch,
    option_of,
    validated,
)
from asyncdiff_cli.engine.files import existing
from asyncdiff_cli.engine.limits import MAX_COLUMNS, MAX_IMAGES
from asyncdiff_cli.engine.prompts.files import STDIN, existing_prompts
from asyncdiff_cli.engine.prompts.lines import Line, Options, merged, read_prompts


@dataclass(frozen=True)
class Picture:
    """One image to draw.

    Its seed is the request's plus its number, or its line's plus its number among the line's. A
    generator of its own draws its noise, so the noise depends on the seed and nothing else.
    """

    number: int
    """Its place in the request, from 0."""
    row: int
    """Its prompt's place in the request, from 0."""
    prompt: str
    seed: int
    options: Options


class Request(Options):
    """One call of `asyncdiff sample`: its options hold where a prompt has none of its own."""

    prompts: tuple[Prompt, ...] = ()
    prompt_file: Path | None = None
    source: Path | None = None
    """An image to draw again."""
    compare: Annotated[Numbers, Field(max_length=MAX_COLUMNS)] | None = None
    """Several γ for the same noise."""
    batch_size: Count | None = None
    stepwise: bool = False
    """Whether x̂0 after each step is shown, beside that of the stock sampler."""

    _refuse_switches = field_validator(*Options.model_fields, mode="before")(no_switch)

    @model_validator(mode="after")
    def _check_stepwise(self) -> Request:
        if self.stepwise and self.compare is not None:
            raise ValueError(
                "--stepwise shows one γ beside the stock sampler: give --gamma, or leave out"
                " --compare"
            )
        return self

    @model_validator(mode="after")
    def _check_source(self) -> Request:
        if self.source is None:
            if not self.prompts and self.prompt_file is None:
                raise ValueError("there is no prompt: give one, or --prompt-file, or --from IMAGE")
            if self.prompt_file not in (None, STDIN):
                existing_prompts(self.prompt_file, "file")
            return self
        existing(self.source, "file")
        if self.prompts or self.prompt_file:
            raise ValueError("--from takes its prompt from the image, so give no other")
        for name in ("seed", "num_images", "batch_size", "size"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"--from keeps the noise of the image, which {option_of(name)} would change"
                )
        return self

    @cached_property
    def pictures(self) -> list[Picture]:
        """The images that are asked for, in order; reads the prompt file, once.

        Raises:
            InputError: for a prompt file that cannot be read, naming the line.
        """
        lines = [("", Line(prompt=prompt)) for prompt in self.prompts]
        if self.prompt_file is not None:
            lines += read_prompts(self.prompt_file)
        found: list[Picture] = []
        for row, (where, line) in enumerate(lines):
            options = merged(self, line, where)
            if len(found) + (options.num_images or 1) > MAX_IMAGES:
                raise InputError(
                    f"at most {MAX_IMAGES:,} images are drawn at a time: ask for fewer"
                )
            for i in range(options.num_images or 1):
                seed = (self.seed or 0) + len(found) if line.seed is None else line.seed + i
                if seed > MAX_SEED:
                    raise InputError(f"the seeds run beyond {MAX_SEED}: start with a smaller one")
                found.append(Picture(len(found), row, line.prompt, seed, options))
        return found


def parse_request(**values: Any) -> Request:
    """The request made of a command line's options; None is one that was not given.

    Raises:
        InputError: naming every option that cannot be, on one line.
    """
    return validated(Request, {k: v for k, v in values.items() if v not in (None, ())})
