"""All policies by name: what a command line and a record call them, and what makes them.

Adding a policy is a file with its class, and a row here. Reading the rows needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
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
from asyncdiff_cli.engine.reading import shown

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
        any_length: whether there are one or more numbers, all held to the same check, which are
            one argument.
        default: its number where none is given.
        takes_module: whether it is asked for with the place of a module in place of numbers.
        takes_file: whether it may be asked for with a file in place of numbers.
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
        return self.load()(numbers) if self.any_length else self.load()(*numbers)

    def read(self, source: str) -> Policy:
        """The policy of a file. Raises: as `read_file`."""
        return self.read_file(source).policy()

    def read_file(self, source: str) -> Any:
        """What is in a file, read without torch.

        Raises:
            InputError: for a file of another kind, or one that was made in another way.
        """
        content = _load(self.file_path).load(expanded(source))
        if self.made_by and content.made.get("by") != self.made_by:
            raise InputError(f"{source} was not made by {self.made_by}: name it schedule:{source}")
        return content


def _load(class_path: str) -> Any:
    module, _, name = class_path.partition(":")
    package = __name__.rpartition(".")[0]
    return getattr(import_module(module if "." in module else f"{package}.{module}"), name)


_FIXED = PolicyRow("given:FixedDeviation", "fixed:D", "fixed:0.5", (check_deviation,))
_SCHEDULE = PolicyRow(
    "given:ScheduledDeviation",
    "schedule:D1/D2/…, schedule:FILE.json",
    "schedule:0.5/0.2/0",
    (check_deviation,),
    any_length=True,
    takes_file=True,
)
_CALIBRATED = PolicyRow(
    "given:SolverSchedule",
    "calibrated:FILE.json",
    "calibrated:FILE.json by `asyncdiff calibrate`",
    takes_file=True,
    made_by="calibration",
)
_SPECTRAL = PolicyRow(
    "spectral:SpectralDeviation",
    "spectral[:WEIGHT], spectral:FILE.json",
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
    "detail-daemon": _DETAIL_DAEMON,
    "velocity-scale": _VELOCITY_SCALE,
    "time-shift": _TIME_SHIFT,
    "combined": _COMBINED,
    "epsilon-scaling": _EPSILON_SCALING,
    "noise-shift": _NOISE_SHIFT,
    "model-boost": _MODEL_BOOST,
    "sampler-boost": _SAMPLER_BOOST,
    "each": PolicyRow("per_image:EachPolicy"),
}
"""The policies by name, in the order in which help lists them."""
CHOOSING = ("learned", "lifted", "time-shift")
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
