"""What a request would draw, and what it takes as far as that is told without torch.

Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asyncdiff_cli.engine.backbones import weights
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.compatibility import check_known_size, check_settings
from asyncdiff_cli.engine.backbones.registry import (
    EDITING_FAMILIES,
    REGISTRY,
    SCHEDULER_CLASSES,
    BackboneEntry,
)
from asyncdiff_cli.engine.collector import collector_at_rest
from asyncdiff_cli.engine.drawing.estimate import (
    UNKNOWN,
    Estimate,
    Forecast,
    LookedAt,
    ModelNeeds,
    stored_on_the_hub,
)
from asyncdiff_cli.engine.drawing.planning import check_source_is_kept, from_images, make_plan
from asyncdiff_cli.engine.drawing.request import Request
from asyncdiff_cli.engine.drawing.settings import TOLD
from asyncdiff_cli.engine.drawing.source_image import read_source
from asyncdiff_cli.engine.dtypes import resolve_names
from asyncdiff_cli.engine.errors import AsyncDiffError
from asyncdiff_cli.engine.gpus import count_gpus
from asyncdiff_cli.engine.reading import read_json

UNTRACED = Estimate(None, "--measure traces it")
UNTIMED = Estimate(None, "--measure times models of up to 1 GiB")


@dataclass(frozen=True)
class ToldModel:
    """A model that is known by name, as far as it is told of without torch.

    Attributes:
        choice: what a user asks for.
        directory: where it is; None for one that is not on this disk.
    """

    choice: ModelChoice
    entry: BackboneEntry
    device: str
    dtype: str
    directory: Path | None

    @classmethod
    def of(cls, choice: ModelChoice) -> ToldModel | None:
        """Look a model up; None for one that only its own configuration tells of.

        Raises:
            InputError: for settings that a run refuses.
        """
        entry = REGISTRY.get(choice.name)
        if entry is None or entry.size_multiple is None or choice.model_path is not None:
            return None
        device, dtype = resolve_names(choice.device, choice.dtype, entry, count_gpus())
        _check_settings(choice, device, dtype)
        return cls(choice, entry, device, dtype, weights.snapshot(entry, choice.revision))

    @property
    def size(self) -> int:
        """Height and width in pixels unless asked otherwise; 0 while they are not known."""
        if self.entry.size is not None or self.directory is None:
            return self.entry.size or 0
        return weights.default_size(self.directory)

    def needs(self) -> ModelNeeds:
        """What it needs; its memory takes a trace."""
        choice, place = self.choice, self.directory
        if place is not None:
            choice = choice.changed(scheduler=choice.scheduler or _own_scheduler(place))
        return ModelNeeds(
            choice.filled(self.entry.name, self.device, self.dtype),
            _weights(self.entry, place, choice.quantize, self.dtype),
            UNKNOWN if place is None else UNTRACED,
        )


def look_up_model(
    choice: ModelChoice,
    size: int | None,
    guidance: float | None,
    batch_on: Callable[[str], int],
    measure: bool,
    on_import: Callable[[], None],
) -> LookedAt:
    """Look up the model of an evaluation or a training, without torch if it is known by name.

    Args:
        size, guidance: of what is drawn; None is the backbone's.
        batch_on: a kind of device, such as "cuda", to the images that are drawn at once on it.
        measure, on_import: as of `forecast`.

    Raises:
        InputError, AsyncDiffError: for settings that a run refuses.
    """
    told = None if measure else ToldModel.of(choice)
    if told is not None:
        return LookedAt(told.entry, told.size, told.needs())
    with collector_at_rest():
        from asyncdiff_cli.engine.drawing.measured import look_at

        on_import()
    return look_at(choice, size, guidance, batch_on)


def forecast(
    request: Request,
    choice: ModelChoice,
    out: Path,
    measure: bool = False,
    on_import: Callable[[], None] = lambda: None,
) -> Forecast:
    """Plan a request. What a backbone that is known by name takes is told without torch.

    Args:
        measure: whether the model is traced, and timed if it is small. Others than those that are
            known by name always are: only their own configuration tells what they draw.
        on_import: called once torch and diffusers are imported, if they are.

    Raises:
        InputError: for all that can be refused without running the model.
        AsyncDiffError: for a repository that is neither known by name nor on the disk.
    """
    recorded, choice = read_source(request, choice)
    told = None if measure else ToldModel.of(choice)
    if told is None:
        with collector_at_rest():
            from asyncdiff_cli.engine.drawing.measured import measured

            on_import()
        return measured(request, recorded, choice, out)
    entry = told.entry
    plan = make_plan(request, recorded, entry, told.size, TOLD)
    for settings in {batch.settings for batch in plan.batches}:
        check_known_size(choice, settings.height, settings.width)
    plan = from_images(plan, choice.scheduler, entry.family in EDITING_FAMILIES)
    check_source_is_kept(request, plan, out)
    return Forecast(plan, told.needs(), UNKNOWN if told.directory is None else UNTIMED)


def _check_settings(choice: ModelChoice, device: str, dtype: str) -> None:
    """Refuse what a run would refuse; of three settings only the libraries know."""
    check_settings(choice, device.partition(":")[0], dtype)
    if choice.attention is not None or choice.compile or choice.quantize == "fp8":
        from asyncdiff_cli.engine.backbones.setup import Setup
        from asyncdiff_cli.engine.devices import resolve_device

        Setup.of(choice).check(*resolve_device(device, dtype))


def _own_scheduler(directory: Path) -> str | None:
    """The solver of a pipeline; None for one that is not known, which loading refuses."""
    index = read_json(directory / "model_index.json", weights.PipelineIndex)
    own = index.components()["scheduler"][1]
    return next((name for name, known in SCHEDULER_CLASSES.items() if known == own), None)


def _weights(
    entry: BackboneEntry, directory: Path | None, quantize: str | None, dtype: str
) -> Estimate:
    """Bytes of the weights of a backbone: as they are held, or as they are stored on the hub."""
    if directory is None:
        return stored_on_the_hub(entry)
    try:
        how = f"in {dtype}" + (f", before --quantize {quantize}" if quantize else "")
        return Estimate(weights.loaded_bytes(directory, dtype), how)
    except AsyncDiffError as error:
        return Estimate(None, str(error))
