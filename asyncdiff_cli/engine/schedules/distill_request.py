"""What a user asks of `distill`, checked before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.named import check_model
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.policies.modules import (
    backbone_of,
    check_is_schedule,
    check_module,
    find_module,
)
from asyncdiff_cli.engine.repository import Repository
from asyncdiff_cli.engine.schedules.request import ScheduleRequest, parse_drawn_request
from asyncdiff_cli.engine.training.recipe_files import load_recipe


class DistillRequest(ScheduleRequest):
    """A schedule that is to be distilled from a module."""

    module: str
    """Its place, as `find_module` takes it."""

    @property
    def sources(self) -> dict[str, str]:
        remote = isinstance(find_module(self.module), Repository)
        where = " (of the hub: there is no such directory)" if remote else ""
        return {"module": f"{self.module}{where}"}


def parse_distill_request(
    source: str, choice: ModelChoice, **values: Any
) -> tuple[DistillRequest, ModelChoice]:
    """The request made of a command line, and the model that draws.

    What is not given is that of the run's recipe, and for a module that a backbone ships its own.

    Args:
        source: the directory of a run, or a module as `find_module` takes it.
        values: of the options; None is one that was not given.

    Raises:
        InputError: as `find_module` and `parse_drawn_request`, or for a damaged run.
    """
    run, own = expanded(source), {}
    if _holds_module(run / "tpm"):
        recipe = load_recipe(str(run / "recipe.yaml"))
        own = {
            "dataset": recipe.prompts,
            "steps": recipe.num_inference_steps,
            "guidance": recipe.guidance_scale,
            "size": recipe.size,
        }
        model = over(recipe.model(), choice)
        check_model(run, model, choice)
        source, choice = str(run / "tpm"), model
    if config := check_module(source):
        check_is_schedule(source, config.actions)
    if choice.backbone is None and (own_backbone := backbone_of(source)):
        choice = choice.changed(backbone=own_backbone)
    return parse_drawn_request(DistillRequest, choice, own, module=source, **values), choice


def over(model: ModelChoice, choice: ModelChoice) -> ModelChoice:
    """A model with what a user asks for in its place."""
    given = {name: value for name in choice.options() if (value := getattr(choice, name))}
    off = {name: ModelChoice.model_fields[name].default for name in choice.off}
    return model.changed(**off, **given, off=choice.off)


def _holds_module(directory: Path) -> bool:
    return (directory / "config.json").is_file()
