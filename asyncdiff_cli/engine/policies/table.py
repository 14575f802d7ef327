"""All policies by name: what a command line and a record call them, and what makes them.

Adding a policy is a file with its class, and a row here. Reading the rows needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncdiff_cli.engine.checks import (
    check_amount,
    check_boost,
    check_choice,
    check_deviation,
    check_scale,
    check_shift,
    check_weight,
    check_window,
)
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.files import expanded
from asyncdiff_cli.engine.policies.modules import MODULES
from asyncdiff_cli.engine.reading import shown
from asyncdiff_cli.engine.repository import Repository

if TYPE_CHECKING:
    from asyncdiff_cli.engine.policies.base import Policy


SCHEDULE_FILE = ".json"
"""How the name of a schedule file ends."""


@dataclass(frozen=True)
class PolicyRow:
    """What is known of a policy before it is made.

    Attributes:
        class_path: its class as MODULE:CLASS, beside this module or with all its packages.
        usage: how a command line asks for it; None for one that only records name.
        example: what a message shows of it.
        checks: of the numbers behind its name, one each; they are the arguments of the class.
        any_length: whether there are as many numbers as one likes for each check, which in turn
            hold for one after another; those of a check are one argument.
        default: its number where none is given.
        takes_module: whether it is asked for with the place of a module in place of numbers.
        takes_file: whether it may be asked for with a file in place of numbers, or with a hub
            repository that holds one.
        file_path: the class of that file, as of `class_path`.
        made_by: how that file must have been made, as `Schedule.made` says it; "" for any way.
    """

    class_path: str
    usage: str | None = None
    example: str = ""
    checks: tuple[Callable[[float], None], ...] = ()
    any_length: bool = False
    default: float | None = None
    takes_module: bool = False
    takes_file: bool = False
    file_path: str = "schedule_file:Schedule"
    made_by: str = ""

    def load(self) -> Any:
        """The class."""
        return _load(self.class_path)

    def make(self, *numbers: float) -> Policy:
        """The policy of the numbers behind its name."""
        if not self.any_length:
            return self.load()(*numbers)
        several = len(self.checks)
        return self.load()(*(numbers[place::several] for place in range(several)))

    def read(self, source: str) -> Policy:
        """The policy of a file, or of a hub repository. Raises: as `read_file` and `locate`."""
        path, commit = self.locate(source)
        return self.read_file(source, path).policy(commit)

    def check_file(self, source: str) -> None:
        """A file can be read, or may be in a hub repository, which is not asked.

        Raises:
            InputError: as `read_file`, and for what is on the disk, but no such file.
        """
        if repository_of(source) is None:
            self.read_file(source)
        elif expanded(source).exists():
            raise InputError(f"{source} is not a {SCHEDULE_FILE} file")

    def read_file(self, source: str, path: Path | None = None) -> Any:
        """What is in a file, read without torch.

        Args:
            source: what a user calls it.
            path: where it is; default there.

        Raises:
            InputError: for a file of another kind, or one that was made in another way.
        """
        content = self.file_class.load(expanded(source) if path is None else path)
        if self.made_by and content.made.get("by") != self.made_by:
            raise InputError(f"{source} was not made by {self.made_by}: name it schedule:{source}")
        return content

    def locate(self, source: str) -> tuple[Path, str | None]:
        """Where a file is, downloaded if it is on the hub; and its repository, with the commit.

        Raises:
            InputError, AsyncDiffError: as `hub_errors`.
        """
        if (repository := repository_of(source)) is None:
            return expanded(source), None
        path = _download(repository, self.file_class.file)
        return path, str(repository._replace(revision=path.parent.name))

    @property
    def file_class(self) -> Any:
        """The class of its file."""
        return _load(self.file_path)


def repository_of(source: str) -> Repository | None:
    """The hub repository that the file of a policy is in; None for one on the disk, or numbers."""
    repository = None if source.endswith(SCHEDULE_FILE) else Repository.read(source)
    parts = repository.name.split("/") if repository is not None else []
    return None if any(as_number(part) is not None for part in parts) else repository


def as_number(text: str) -> float | None:
    """The number that a text is, a zero without its sign; None for any other text."""
    try:
        return float(text) + 0.0
    except ValueError:
        return None


@lru_cache(maxsize=16)
def _download(repository: Repository, file: str) -> Path:
    """A file of a repository, asked for once for all prompts that name it."""
    from asyncdiff_cli.engine.hub import fetch_files, hub_errors

    with hub_errors(
        repository.name,
        local=f"a file on the disk, such as {file}",
        embedded="spectral and fixed:0.5 need no download",
        lacking=f"holds no {file}",
    ):
        return fetch_files(repository, file) / file


def _load(class_path: str) -> Any:
    module, _, name = class_path.partition(":")
    package = __name__.rpartition(".")[0]
    return getattr(import_module(module if "." in module else f"{package}.{module}"), name)


_FIXED = PolicyRow("given:FixedDeviation", "fixed:D", "fixed:0.5", (check_deviation,))
_SCHEDULE = PolicyRow(
    "given:ScheduledDeviation",
    "schedule:D1/D2/…, schedule:FILE.json, schedule:USER/NAME",
    "schedule:0.5/0.2/0",
    (check_deviation,),
    any_length=True,
    takes_file=True,
)
_CALIBRATED = PolicyRow(
    "given:SolverSchedule",
    "calibrated:FILE.json, calibrated:USER/NAME",
    "calibrated:FILE.json by `asyncdiff calibrate`",
    takes_file=True,
    made_by="calibration",
)
_SPECTRAL = PolicyRow(
    "spectral:SpectralDeviation",
    "spectral[:WEIGHT], spectral:FILE.json, spectral:USER/NAME",
    "spectral:1",
    (check_weight,),
    default=1.0,
    takes_file=True,
    file_path="spectrum_file:MeasuredSpectrum",
)
_DETAIL_DAEMON = PolicyRow(
    "detail_daemon:DetailDaemon",
    "detail-daemon[:AMOUNT]",
    "detail-daemon:0.1",
    (check_amount,),
    default=0.1,
)
_VELOCITY_SCALE = PolicyRow(
    "velocity_scale:VelocityScale",
    "velocity-scale[:OMEGA]",
    "velocity-scale:0.9",
    (check_scale,),
    default=0.9,
)
_TIME_SHIFT = PolicyRow(
    "time_shift:TimeShift",
    "time-shift[:WINDOW]",
    "time-shift:0.5",
    (check_window,),
    default=0.5,
)
_COMBINED = PolicyRow(
    "velocity_scale:Combined",
    "combined:D/OMEGA",
    "combined:0.5/0.9",
    (check_deviation, check_scale),
)
_SCALED_SCHEDULE = PolicyRow(
    "scaled_schedule:ScaledSchedule",
    "scaled-schedule:D1/OMEGA1/D2/OMEGA2/…",
    "scaled-schedule:0.5/0.9/0/1",
    (check_deviation, check_scale),
    any_length=True,
)
_EPSILON_SCALING = PolicyRow(
    "epsilon_scaling:EpsilonScaling",
    "epsilon-scaling[:LAMBDA]",
    "epsilon-scaling:1.005",
    (check_scale,),
    default=1.005,
)
_NOISE_SHIFT = PolicyRow(
    "noise_shift:NoiseShift", "noise-shift:SHIFT", "noise-shift:1.5", (check_shift,)
)
_MODEL_BOOST = PolicyRow(
    "detail_boost:ModelDetailBoost",
    "model-boost[:WEIGHT]",
    "model-boost:1",
    (check_boost,),
    default=1.0,
)
_SAMPLER_BOOST = PolicyRow(
    "detail_boost:SamplerDetailBoost",
    "sampler-boost[:WEIGHT]",
    "sampler-boost:1",
    (check_boost,),
    default=1.0,
)
_LEARNED = "learned:LearnedDeviation"

POLICIES: dict[str, PolicyRow] = {
    "baseline": PolicyRow("given:Synchronous", "baseline", "baseline"),
    "synchronous": PolicyRow("given:Synchronous"),
    "fixed": _FIXED,
    "schedule": _SCHEDULE,
    "solver-schedule": PolicyRow("given:SolverSchedule"),
    "calibrated": _CALIBRATED,
    "spectral": _SPECTRAL,
    "learned": PolicyRow(_LEARNED, "learned[:DIR]", "learned:DIR", takes_module=True),
    "lifted": PolicyRow(_LEARNED, "lifted[:DIR]", "lifted:DIR", takes_module=True),
    "joint": PolicyRow(_LEARNED, "joint[:DIR]", "joint:DIR", takes_module=True),
    "detail-daemon": _DETAIL_DAEMON,
    "velocity-scale": _VELOCITY_SCALE,
    "time-shift": _TIME_SHIFT,
    "combined": _COMBINED,
    "scaled-schedule": _SCALED_SCHEDULE,
    "epsilon-scaling": _EPSILON_SCALING,
    "noise-shift": _NOISE_SHIFT,
    "model-boost": _MODEL_BOOST,
    "sampler-boost": _SAMPLER_BOOST,
    "each": PolicyRow("per_image:EachPolicy"),
}
"""The policies by name, in the order in which help lists them."""
CHOOSING = (*MODULES, "time-shift")
"""Policies whose deviations differ between images."""


def usages() -> str:
    """How a command line asks for each policy, separated by commas."""
    return ", ".join(row.usage for row in POLICIES.values() if row.usage is not None)


def policy_from_dict(description: dict[str, Any]) -> Policy:
    """The policy that `to_dict` described: `{"name": "fixed", "deviation": 0.5}`.

    Raises:
        InputError: for an unknown name (with the nearest one) or settings that do not fit.

    Example:
        >>> policy_from_dict({"name": "fixed", "deviation": 0.5})
        FixedDeviation(deviation=0.5)
    """
    settings = dict(description)
    name = str(settings.pop("name", None))
    check_choice("policy", name, POLICIES)
    try:
        if "policies" in settings:  # of one that is made of others
            settings["policies"] = [policy_from_dict(each) for each in settings["policies"]]
        return POLICIES[name].load().from_dict(settings)
    except AsyncDiffError:
        raise
    except TypeError:  # of which the message names classes
        raise InputError(f"policy {name} is not made of the settings {shown(settings)}") from None
    except (ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise InputError(f"policy {name}: {error}") from None
