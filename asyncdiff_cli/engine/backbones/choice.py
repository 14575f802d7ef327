"""Which model draws, where and how.

An option of a model is one field here. The command line, recipes, the records of pictures and the
settings of stores take it from its class; `Setup` does what it asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from asyncdiff_cli.engine.backbones.lora import LoRA
from asyncdiff_cli.engine.backbones.presence import check_backbone, check_model_path
from asyncdiff_cli.engine.backbones.registry import (
    GRIDS,
    OFFLOADS,
    QUANTIZATIONS,
    REGISTRY,
    SCHEDULER_CLASSES,
)
from asyncdiff_cli.engine.checks import unknown
from asyncdiff_cli.engine.dtypes import DTYPES, dtype_name
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.reading import problems

DEFAULT_BACKBONE = "mini"


@dataclass(frozen=True)
class Option:
    """How a user gives a setting of a model.

    Attributes:
        metavar, help: as the command line shows them.
        flags: as it takes them; default the field's name.
        known: the names that there are, for a setting that is one of some.
        kind: what messages call such a name.
        neutral: what switches the setting off, over what a picture was drawn with or what a recipe
            says; None for one that cannot be.
    """

    metavar: str = ""
    help: str = ""
    flags: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    kind: str = ""
    neutral: Any = None


class ModelPlace(BaseModel):
    """Which model, and where it is read from."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    backbone: Annotated[
        str | None,
        Option(
            "NAME",
            f"{', '.join(REGISTRY)}, a pipeline directory or a hub repository.",
        ),
    ] = None
    """A name of the registry, a pipeline directory or a hub repository."""
    revision: Annotated[str | None, Option("REV", "Branch, tag or commit of the repository.")] = (
        None
    )
    """Branch, tag or commit of its repository; None for the default one."""
    model_path: Annotated[
        Path | None,
        Option(
            "PATH",
            "Load the backbone from this directory, or its transformer from this .safetensors or"
            " .gguf file.",
        ),
    ] = None
    """A directory to load it from in place of its repository, or a file of its transformer."""


class RecordedSettings(BaseModel):
    """How a model draws: what its pictures depend on, so that their records hold it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    scheduler: Annotated[
        str | None,
        Option(
            "NAME",
            f"{', '.join(SCHEDULER_CLASSES)}. (default: model, its own)",
            ("--solver", "--scheduler"),
            tuple(SCHEDULER_CLASSES),
            "scheduler",
            neutral="model",
        ),
    ] = None
    """The solver; None, or model, for the model's own."""
    grid: Annotated[
        str | None,
        Option(
            "NAME",
            f"Where the steps lie: {', '.join(GRIDS)}. (default: model)",
            (),
            GRIDS,
            "grid",
            neutral="model",
        ),
    ] = None
    """Where the steps lie; None, or model, for the model's own."""
    quantize: Annotated[
        str | None,
        Option(
            "BITS",
            f"Hold the transformer and large text encoders as {', '.join(QUANTIZATIONS)}."
            " (default: none)",
            (),
            QUANTIZATIONS,
            "quantization",
            neutral="none",
        ),
    ] = None
    """Hold its transformer and large text encoders as nf4, int8 or fp8; None, or none, for its
    dtype."""
    lora: Annotated[
        tuple[str, ...],
        Option(
            "SOURCE[@SCALE]",
            "A LoRA of a file or repository; repeatable. (default: none)",
            neutral=("none",),
        ),
    ] = ()
    """Adapters, SOURCE or SOURCE@SCALE each; or none."""
    compile: Annotated[
        bool,
        Option(
            "",
            "Compile the transformer's repeated blocks. (default: no)",
            ("--compile/--no-compile",),
            neutral=False,
        ),
    ] = False
    """Compile its transformer's repeated blocks."""
    attention: Annotated[
        str | None,
        Option(
            "NAME",
            "diffusers' attention backend, such as flash or sage. (default: none given)",
            neutral="none",
        ),
    ] = None
    """diffusers' attention backend; None, or none, for its default."""
    dtype: Annotated[
        str | None,
        Option(
            "DTYPE",
            "fp32, bf16 or fp16. (default: the backbone's on CUDA, fp32 on a CPU)",
            (),
            tuple(DTYPES),
            "dtype",
        ),
    ] = None
    """fp16, bf16 or fp32; None for the backbone's own on CUDA, fp32 on a CPU."""


class ModelSettings(RecordedSettings, ModelPlace):
    """Settings of a model, but for the device."""

    offload: Annotated[
        str | None,
        Option(
            "WHAT",
            f"What waits on the CPU for its turn: {', '.join(OFFLOADS)}. (default: none)",
            (),
            OFFLOADS,
            "offload",
            neutral="none",
        ),
    ] = None
    """What of it waits on the CPU for its turn; None, or none, for nothing."""

    @classmethod
    def options(cls) -> dict[str, Option]:
        """How each setting is given, by its name."""
        return {
            name: option
            for name, field in cls.model_fields.items()
            for option in field.metadata
            if isinstance(option, Option)
        }


class ModelChoice(ModelSettings):
    """Which model draws, where and how: the arguments of `load_backbone`; None is its default."""

    device: Annotated[
        str | None,
        Option("DEVICE", "cpu, cuda or cuda:N. (default: CUDA where there is one)"),
    ] = None
    """Where it computes; None for CUDA where there is one."""
    off: frozenset[str] = frozenset()
    """The names of those that are at their default because that was asked for."""

    @classmethod
    def parse(cls, **given: Any) -> Self:
        """The choice that is typed, with the words of `NEUTRAL`; None is what was not given.

        Raises:
            InputError: for what is no setting of a model, or of another type.
        """
        off = frozenset(name for name, word in NEUTRAL.items() if given.get(name) == word)
        said = {k: v for k, v in given.items() if k not in off and v is not None}
        if "model_path" in said:
            said["model_path"] = expanded(said["model_path"])
        try:
            return cls(**said, off=off)
        except ValidationError as error:
            raise InputError("; ".join(map(str, problems(error, cls)))) from None

    @property
    def name(self) -> str:
        """The backbone's name."""
        return self.backbone or DEFAULT_BACKBONE

    def to_dict(self) -> dict[str, Any]:
        """Every option as a JSON value."""
        return self.model_dump(mode="json", exclude={"off"})

    def changed(self, **settings: Any) -> Self:
        """The same with other settings."""
        return self.model_copy(update=settings)

    def filled(self, name: str, device: object, dtype: object) -> Self:
        """The choice of a backbone with the defaults that are known without looking it up."""
        return self.changed(
            backbone=name,
            scheduler=self.scheduler or NEUTRAL["scheduler"],
            grid=self.grid or NEUTRAL["grid"],
            device=str(device),
            dtype=dtype_name(dtype),
            offload=self.offload or NEUTRAL["offload"],
        )

    def check(self) -> None:
        """Every name is known and every local file there, as far as the disk and names tell.

        Raises:
            InputError: for what is not.
        """
        for name, option in self.options().items():
            value = getattr(self, name)
            # the word that switches a setting off is among its names here, as it is typed
            names = dict.fromkeys(
                (option.neutral, *option.known) if option.neutral else option.known
            )
            if option.known and value is not None and value not in names:
                raise InputError(f"{flag(name)}: {unknown(option.kind, value, names)}")
        for text in self.lora:
            LoRA.parse(text).check()
        if self.model_path is not None:
            check_model_path(self.model_path)
        if self.model_path is None or self.model_path.is_file():
            check_backbone(self.name)


def flag(name: str) -> str:
    """How the command line takes a setting of a model: `--solver`."""
    default = "--" + name.replace("_", "-")
    return (ModelChoice.options()[name].flags or (default,))[0].partition("/")[0]


NEUTRAL: Mapping[str, Any] = {
    name: option.neutral
    for name, option in ModelChoice.options().items()
    if option.neutral is not None
}
"""What is given for each option of a model that can be switched off, to have it off."""
