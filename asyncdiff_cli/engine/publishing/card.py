"""The card of what is published: the README.md that the hub shows, with its metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

import asyncdiff_cli
from asyncdiff_cli.engine.assets import ASSETS
from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.evaluation.cells import heading
from asyncdiff_cli.engine.evaluation.table_markup import escape_markdown, markdown_table
from asyncdiff_cli.engine.evaluation.tables import TableBlock
from asyncdiff_cli.engine.policies.modules import LIBRARY, TAGS
from asyncdiff_cli.engine.policies.specs import plain
from asyncdiff_cli.engine.repository import Repository
from asyncdiff_cli.engine.statistics import Difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASK = "text-to-image"
ABSOLUTE = re.compile(r"(?<![\w/.~])~?(?!//)/(?:[^\s\"'`<>|:,/]+/)+")
"""The folders of a path from the root or the home directory, which say whose machine it was."""


@dataclass(frozen=True)
class CardChart:
    """A figure of a card."""

    file: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Card:
    """What a card says, before it is known where it goes."""

    summary: str
    """What it is, in a paragraph."""
    option: str
    """The option of a command line that uses it, REPOSITORY for its place."""
    code: str
    """Lines of Python that use it in a pipeline of diffusers, likewise."""
    facts: Mapping[str, Any]
    backbone: str | None = None
    """What it was made for: a name of the registry, a repository or a place on a disk."""
    drawing: Mapping[str, Any] | None = None
    """Options of `asyncdiff sample` that it was made with."""
    tables: Sequence[TableBlock] = ()
    charts: Sequence[CardChart] = ()
    results: Sequence[EvalResult] = ()
    recipe: str | None = None
    lacking: Sequence[str] = ()
    """What the card could not tell, and what makes it."""

    def text(self, repository: str, licence: str | None) -> str:
        """The README.md in a repository, without the folders of this machine."""
        name = repository.rpartition("/")[2]
        data = ModelCardData(
            model_name=name if self.results else None,
            library_name=LIBRARY,
            license=licence,
            base_model=base_model(self.backbone),
            pipeline_tag=TASK,
            tags=list(TAGS),
            eval_results=list(self.results) or None,
        )
        facts = {key: value for key, value in self.facts.items() if value is not None}
        card = ModelCard.from_template(
            data,
            template_path=str(ASSETS / "card.md.j2"),
            title=name,
            summary=self.summary,
            sample=self._command(repository),
            code=self.code.replace("REPOSITORY", repository),
            facts={key: escape_markdown(str(value)) for key, value in facts.items()},
            tables=[markdown_table(block) for block in self.tables],
            charts=self.charts,
            recipe=self.recipe,
            version=asyncdiff_cli.__version__,
        )
        return without_folders(str(card).strip() + "\n")

    def _command(self, repository: str) -> str:
        options = {"--backbone": backbone_option(self.backbone), **(self.drawing or {})}
        given = ((name, value) for name, value in options.items() if value is not None)
        words = [f"{k} {plain(v) if isinstance(v, float) else v}" for k, v in given]
        own = self.option.replace("REPOSITORY", repository)
        return " ".join(["asyncdiff sample", '"a cat"', *words, own])


def backbone_option(backbone: str | None) -> str | None:
    """A backbone as `--backbone` takes it anywhere: by its name in the registry, if it has one."""
    known = (name for name, entry in REGISTRY.items() if entry.repo and entry.repo == backbone)
    return next(known, backbone)


def base_model(backbone: str | None) -> str | None:
    """The hub repository of a backbone; None for what is on a disk, or not known."""
    if backbone in REGISTRY:
        return REGISTRY[backbone].repo
    repository = None if backbone is None else Repository.read(backbone)
    return None if repository is None else repository.name


def whom(backbone: str | None) -> str:
    """A backbone in a sentence."""
    return "a flow model" if backbone is None else f"`{backbone}`"


def drawn_with(steps: int, guidance: float | None) -> str:
    """Further arguments of a call of a pipeline."""
    return f", num_inference_steps={steps}" + (
        "" if guidance is None else f", guidance_scale={plain(guidance)}"
    )


def without_folders(text: str) -> str:
    """A text with the last names alone of absolute paths.

    Example:
        >>> without_folders("prompts: /home/alice/data/prompts.txt, https://arxiv.org/abs/1")
        'prompts: …/prompts.txt, https://arxiv.org/abs/1'
    """
    return ABSOLUTE.sub("…/", text)


class MeasuredOn(NamedTuple):
    """What pictures were drawn of, and how, to be measured."""

    dataset: str
    split: str | None
    steps: int
    guidance_scale: float | None

    def result(self, metric: str, found: Difference, name: str | None = None) -> EvalResult:
        """A metric of the metadata: the mean, and its paired difference with the interval.

        Args:
            metric, name: what programs and people call it.
        """
        drawn = {"num_inference_steps": self.steps, "guidance_scale": self.guidance_scale}
        beside = {key: number for key, number in vars(found).items() if key not in ("mean", "n")}
        return EvalResult(
            task_type=TASK,
            task_name="Text to image",
            dataset_type=without_folders(self.dataset),
            dataset_name=without_folders(self.dataset),
            dataset_split=self.split,
            dataset_args={"prompts": found.n, **drawn},
            metric_type=metric,
            metric_name=name or heading(metric),
            metric_value=found.mean,
            metric_args={"baseline": found.mean - found.difference, **beside},
        )
