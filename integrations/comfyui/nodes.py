"""The nodes: what ComfyUI shows, and what it calls."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from comfy.samplers import KSAMPLER

from .learned import learned
from .module import CONFIG, WEIGHTS, find_module, load_module
from .sampler import asynchronous
from .schedules import Schedule, read_schedule

GAMMA = (
    "FLOAT",
    {
        "default": 1.0,
        "min": -10.0,
        "max": 10.0,
        "step": 0.05,
        "round": False,
        "tooltip": "γ, what the deviations are multiplied by. At 0 the sampler is as it was.",
    },
)


class SamplerNode:
    """What the nodes have in common: a sampler in, a sampler out."""

    CATEGORY = "sampling/custom_sampling/samplers"
    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "wrap"


class AsyncSchedule(SamplerNode):
    """A sampler whose model is told the times of a schedule of deviations."""

    DESCRIPTION = "Tells a flow model other times than the sampler's own, by a schedule."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The inputs by name."""
        schedule = {
            "default": "0.5",
            "multiline": True,
            "tooltip": "D in [-1, 1] of every step but the first: 0.8, 0.5, 0.1 for 4 steps. One"
            " number is for all steps. Or the path of a schedule file, FILE.json.",
        }
        return {
            "required": {
                "sampler": ("SAMPLER",),
                "schedule": ("STRING", schedule),
                "gamma": GAMMA,
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, schedule: str | None = None) -> bool | str:  # noqa: N802
        """True, or what is wrong with a schedule; None is one that another node will give."""
        if schedule is None:
            return True
        try:
            read_schedule(schedule)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, schedule: str | None = None, **others: Any) -> str:  # noqa: N802
        """What a file holds, so that another one of the same name is read again."""
        return "" if schedule is None else repr(read_schedule(schedule))

    def wrap(self, sampler: Any, schedule: str, gamma: float) -> tuple[KSAMPLER]:
        """The sampler, in a tuple as ComfyUI takes it.

        Raises:
            ValueError: for a schedule, γ or sampler that is none.
        """
        return (asynchronous(sampler, read_schedule(schedule), gamma),)


class AsyncScheduleConstant(SamplerNode):
    """A sampler whose model is told times by one deviation at every step."""

    DESCRIPTION = "Tells a flow model other times than the sampler's own, by one deviation."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The inputs by name."""
        deviation = {
            "default": 0.5,
            "min": -1.0,
            "max": 1.0,
            "step": 0.05,
            "round": False,
            "tooltip": "D: 0 is the sampler as it was, 1 tells the time one step ahead (cleaner),"
            " -1 the time of the step before.",
        }
        return {
            "required": {
                "sampler": ("SAMPLER",),
                "deviation": ("FLOAT", deviation),
                "gamma": GAMMA,
            }
        }

    def wrap(self, sampler: Any, deviation: float, gamma: float) -> tuple[KSAMPLER]:
        """The sampler, in a tuple as ComfyUI takes it.

        Raises:
            ValueError: for a deviation, γ or sampler that is none.
        """
        return (asynchronous(sampler, Schedule((deviation,), constant=True), gamma),)


class AsyncModule(SamplerNode):
    """A sampler whose model is told the times that a trained module chooses for each image."""

    DESCRIPTION = "Tells SD3, SD3.5 or FLUX.1 the times that a trained module chooses."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The inputs by name."""
        module = {
            "default": "",
            "tooltip": "The path of a module's folder, with config.json and model.safetensors:"
            " `tpm` in a folder that `asyncdiff train` wrote.",
        }
        return {
            "required": {
                "sampler": ("SAMPLER",),
                "module": ("STRING", module),
                "gamma": GAMMA,
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, module: str | None = None) -> bool | str:  # noqa: N802
        """True, or what is wrong with a module; None is one that another node will give."""
        if module is None:
            return True
        try:
            find_module(module)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, module: str | None = None, **others: Any) -> str:  # noqa: N802
        """What the files hold, so that another module of the same name is read again."""
        held = hashlib.sha256()
        for name in () if module is None else (CONFIG, WEIGHTS):
            with open(os.path.join(find_module(module)[0], name), "rb") as file:
                held.update(file.read())
        return held.hexdigest()

    def wrap(self, sampler: Any, module: str, gamma: float) -> tuple[KSAMPLER]:
        """The sampler, in a tuple as ComfyUI takes it.

        Raises:
            ValueError: for a module, γ or sampler that is none.
        """
        return (learned(sampler, load_module(module), gamma),)


NODE_CLASS_MAPPINGS = {
    "AsyncDiffSchedule": AsyncSchedule,
    "AsyncDiffScheduleConstant": AsyncScheduleConstant,
    "AsyncDiffModule": AsyncModule,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AsyncDiffSchedule": "Async schedule",
    "AsyncDiffScheduleConstant": "Async schedule (constant)",
    "AsyncDiffModule": "Async module",
}
