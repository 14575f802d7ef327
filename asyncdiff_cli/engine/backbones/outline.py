"""What a backbone will be, told before any of its weights are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from asyncdiff_cli.engine.backbones.adapters import Adapter
from asyncdiff_cli.engine.backbones.choice import NEUTRAL, ModelChoice
from asyncdiff_cli.engine.backbones.control_nets import ControlNet, find_control_net
from asyncdiff_cli.engine.backbones.fingerprint import fingerprint
from asyncdiff_cli.engine.backbones.image_pipelines import control_pipeline, image_pipeline
from asyncdiff_cli.engine.backbones.memory.hollow import empty_adapter
from asyncdiff_cli.engine.backbones.registry import REGISTRY, BackboneEntry
from asyncdiff_cli.engine.backbones.schedulers import check_names, class_scheduler_name
from asyncdiff_cli.engine.backbones.setup import Setup
from asyncdiff_cli.engine.backbones.source import Source, configuration, find_source
from asyncdiff_cli.engine.backbones.weights import default_size
from asyncdiff_cli.engine.checks import check_size
from asyncdiff_cli.engine.devices import resolve_device
from asyncdiff_cli.engine.errors import AsyncDiffError


@dataclass(frozen=True)
class Outline:
    """A backbone that is yet to be loaded, with what it has in common with a `Backbone`."""

    choice: ModelChoice
    source: Source
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(
        cls,
        choice: ModelChoice,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> Outline:
        """Look a model up; what can be refused without it is refused before.

        Args:
            device, dtype: in place of the choice's.

        Raises:
            InputError: for settings that cannot be, or cannot be together.
            InputError, AsyncDiffError: as `find_source`.
        """
        device, dtype = device or choice.device, dtype or choice.dtype
        setup = Setup.of(choice)
        setup.check(*resolve_device(device, dtype, REGISTRY.get(choice.name)))
        check_names(choice.scheduler, choice.grid)
        source = find_source(choice.name, choice.model_path, choice.revision, choice.quantize)
        where, computed_in = resolve_device(device, dtype, source.entry)
        setup.check(where, computed_in)
        return cls(choice, source, where, computed_in)

    @property
    def name(self) -> str:
        return self.source.entry.name

    @property
    def entry(self) -> BackboneEntry:
        return self.source.entry

    @property
    def revision(self) -> str | None:
        return self.source.revision

    @property
    def fingerprint(self) -> str | None:
        return fingerprint(self.source.directory, self.source.checkpoint, self.choice.lora)

    @property
    def scheduler(self) -> str:
        own = self.source.components["scheduler"][1]
        return self.choice.scheduler or class_scheduler_name(own)

    @property
    def grid(self) -> str:
        return self.choice.grid or NEUTRAL["grid"]

    @property
    def setup(self) -> Setup:
        return Setup.of(self.choice)

    @cached_property
    def configuration(self) -> Path:
        """The directory of all components' configuration, which may have to be downloaded.

        Raises:
            AsyncDiffError: if it cannot be had.
        """
        return configuration(self.source)

    @cached_property
    def size(self) -> int:
        """Height and width in pixels that it draws by default.

        Raises:
            InputError: if only its configuration knows, and that cannot be read.
        """
        if self.entry.size is not None:
            return self.entry.size
        fixed = self.source.adapter_class.default_size
        if isinstance(fixed, int):  # of a family whose pipelines fix it
            return fixed
        return default_size(self.configuration)

    @cached_property
    def adapter(self) -> Adapter:
        """The adapter without weights, around what decides about the images' sizes alone.

        Raises:
            AsyncDiffError: for a configuration that no model can be made of.
        """
        with torch.device("meta"):
            parts = "transformer", "vae"
            return empty_adapter(self.configuration, self.dtype, parts)

    def for_image(self) -> Outline:
        """The same, opened as the pipeline that draws from an image with its components.

        Raises:
            InputError: for a pipeline of which there is none.
        """
        own = image_pipeline(self.source.pipeline_class)
        return replace(self, source=replace(self.source, pipeline_class=own))

    def with_control_net(self, place: str) -> tuple[Outline, ControlNet]:
        """The same, opened as the pipeline that draws with a control net, and the net.

        Raises:
            InputError, AsyncDiffError: for a pipeline of which there is none, and as
                `find_control_net`.
        """
        own = control_pipeline(self.source.pipeline_class)
        net = find_control_net(place, self.source.adapter_class.family)
        source = replace(self.source, pipeline_class=own, control_net=net)
        return replace(self, source=source), net

    def check_size(self, height: int, width: int) -> None:
        """Check a size as `Backbone.check_size` does; the default one can be drawn."""
        if (height, width) == (self.size, self.size):
            return
        try:
            adapter = self.adapter
        except AsyncDiffError:  # what is damaged, loading says
            return
        check_size(height, width, adapter.size_multiple, adapter.largest_size)

    def check_side(self, pixels: int | None) -> None:
        """Check a square as `check_size` does; None is the default one."""
        if pixels is not None:
            self.check_size(pixels, pixels)

    def in_force(self) -> ModelChoice:
        """The choice with what it leaves to the backbone filled in."""
        choice = self.choice.changed(revision=self.revision, scheduler=self.scheduler)
        return choice.filled(self.name, self.device, self.dtype)
