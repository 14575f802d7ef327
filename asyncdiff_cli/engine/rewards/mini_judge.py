"""The judge of mini's world as a reward: how much of what a prompt asks for is in the picture.

`python -m mini judge` trains it, with a seed and scenes of its own; the card beside its weights has
what it reaches on real scenes. It is to mini what the detectors of T2I-CompBench and GenEval are to
large models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from accelerate import init_empty_weights
from PIL import Image
from pydantic import Field
from torch import Tensor
from typing_extensions import Self

from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.pictures import rgb
from asyncdiff_cli.engine.reading import SHOWN, Read, read_json, shown
from asyncdiff_cli.engine.rewards.base import distinct
from asyncdiff_cli.engine.rewards.checkpoints import fill, read_state_dict
from asyncdiff_cli.engine.rewards.embedded import WEIGHTS_FILE, EmbeddedReward
from asyncdiff_cli.engine.rewards.mini_quality import Width, to_pixels
from asyncdiff_cli.engine.rewards.world.answers import answers, mean_probability
from asyncdiff_cli.engine.rewards.world.grammar import parse
from asyncdiff_cli.engine.rewards.world.judge import Found, JudgeNet, find
from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, GROUNDS, HUES, THINGS
from asyncdiff_cli.engine.text import one_line

SIDE = 128
"""Pixels of the pictures that the judge reads."""


class Config(Read):
    """The config.json of a judge: its sizes, and what its outputs mean."""

    widths: Annotated[tuple[Width, ...], Field(min_length=4, max_length=4)]
    things: list[str]
    item_colours: list[str]
    grounds: list[str]
    ground_colours: list[str]

    @classmethod
    def of(cls, widths: tuple[int, ...]) -> Self:
        """The configuration of a judge of the world that this package knows."""
        things = [thing.name for thing in THINGS]
        return cls(
            widths=widths,
            things=things,
            item_colours=list(HUES),
            grounds=list(GROUNDS),
            ground_colours=list(COLOURS),
        )


class MiniJudge(EmbeddedReward):
    """The mean over a prompt's questions of the probability that the picture shows what is asked.

    They are of things, counts, colours, places, relations and the ground, and reads only prompts of
    mini's grammar. A picture of another size is stretched to 128×128 pixels.
    """

    name: ClassVar[str] = "mini_judge"
    files: ClassVar[tuple[str, ...]] = ("config.json", WEIGHTS_FILE)
    stage: ClassVar[str] = "judge"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, model: JudgeNet) -> None:
        self.model = model.eval().requires_grad_(False)

    @classmethod
    def _read(cls, directory: Path) -> Self:
        config = read_json(directory / "config.json", Config)
        if config != Config.of(config.widths):
            raise AsyncDiffError(
                f"{directory} judges another world than this version's: train it again with"
                f" `python -m mini {cls.stage}`"
            )
        with init_empty_weights():
            model = JudgeNet(config.widths)
        fill(model, read_state_dict(directory / WEIGHTS_FILE), cls.name)
        return cls(model)

    @classmethod
    def refuses(cls, prompt: str) -> str | None:
        """Why a prompt is none of mini's grammar."""
        try:
            parse(prompt)
        except ValueError as error:
            return f"{cls.name} cannot read {shown(prompt)}: {one_line(error, SHOWN)}"
        return None

    @torch.inference_mode()
    def details(
        self, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> list[list[dict[str, Any]]]:
        """The answer to each question of each pair: its category and probability."""
        pairs = zip(map(parse, prompts), self._find(images), strict=True)
        return [[vars(each) for each in answers(request, found)] for request, found in pairs]

    def _find(self, images: Sequence[Image.Image]) -> list[Found]:
        pictures = torch.stack([pixels(rgb(image)) for image in images])
        return find(self.model(pictures.to(self.device, self.dtype)))

    def _score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        texts, which = distinct(prompts)
        requests = [parse(text) for text in texts]
        pairs = zip(which, self._find(images), strict=True)
        return torch.tensor([mean_probability(requests[number], found) for number, found in pairs])


def pixels(image: Image.Image) -> Tensor:
    """[3, 128, 128] in [-1, 1]."""
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return to_pixels(image)
